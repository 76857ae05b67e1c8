"""What operating systems say of processor and memory, from samples of their own words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vidfuse import machine
from vidfuse.machine import cpu_quota, instruction_sets, mac_flags, memory_limit


def test_instruction_sets_of_x86():
    flags = frozenset(["avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"])
    assert all(instruction_sets("x86_64", flags, {}).values())
    assert not any(instruction_sets("AMD64", frozenset({"sse2"}), {}).values())
    # where the system lists nothing, as on Windows, torch is asked
    known = {"avx2": True, "avx512_f": False, "amx_tile": True}
    assert instruction_sets("AMD64", frozenset(), known) == {
        "AVX2": True, "AVX-512": False, "AVX512-BF16": None, "AMX": None,
    }  # fmt: skip


def test_instruction_sets_of_arm():
    linux = frozenset(["fp", "asimd", "sve", "bf16"])
    assert instruction_sets("aarch64", linux, {}) == {"NEON": True, "SVE": True, "BF16": True}
    mac = mac_flags("hw.optional.floatingpoint: 1\nhw.optional.arm.FEAT_BF16: 1\n"
                    "hw.optional.arm.FEAT_SME: 0\n")  # fmt: skip
    assert instruction_sets("arm64", mac, {}) == {"NEON": True, "SVE": False, "BF16": True}
    assert instruction_sets("arm64", frozenset(), {})["SVE"] is None
    assert instruction_sets("riscv64", frozenset(), {}) == {}


@pytest.fixture
def files(tmp_path: Path):
    """Writes the files of a system under ``tmp_path``: ``files({"proc/x": "text"})``."""

    def write(contents: dict[str, str]) -> Path:
        for name, text in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_limits_of_control_groups_version_2(files):
    root = files(
        {
            "proc/self/cgroup": "0::/user/job\n",
            "sys/fs/cgroup/user/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/user/job/memory.max": "4000000000\n",
            "sys/fs/cgroup/user/memory.max": "max\n",
        }
    )
    assert cpu_quota(root) == 1.5
    assert memory_limit(root) == 4_000_000_000


def test_limits_of_control_groups_version_1(files):
    root = files(
        {
            "proc/self/cgroup": "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert cpu_quota(root) == 2
    assert memory_limit(root) is None


def test_no_limits(files, tmp_path):
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (None, None)
    root = files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert (cpu_quota(root), memory_limit(root)) == (None, None)


def test_cores_are_those_that_both_affinity_and_quota_give(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    given = {None: 8, 1.5: 2, 0.3: 1, 64.0: 8}
    for quota, cores in given.items():
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert machine.cores() == cores


def test_this_machine():
    total, available = machine.memory()
    assert total > 2**28
    assert 0 < available <= total
    assert machine.usable_cores() >= 1
    assert isinstance(machine.cpu_flags(), frozenset)


ALLOCATOR = """
import sys
import os
import subprocess
import sys
from pathlib import Path
from vidfuse import machine

def touched():
    raise AssertionError("the allocator of the caller's process was changed")

machine.keep_memory = touched
import vidfuse
report = vidfuse.extract(
    sys.argv[1], grid="1", frames=2, workers=1, device="cpu", cache=sys.argv[2],
    backbone="resnet18", layer="layer1", weights="random", size=32,
)
assert report.computed == 2, report
"""


def test_a_call_from_python_leaves_the_allocator_alone(tmp_path: Path) -> None:
    for label in ("left", "right"):
        folder = tmp_path / "data" / label / "clip"
        folder.mkdir(parents=True)
        for shade, name in ((0, "0.png"), (len(label) * 10, "1.png")):
            Image.new("L", (32, 32), shade).save(folder / name)
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATOR, str(tmp_path / "data"), str(tmp_path / "cache")],
        env=os.environ | {"PYTHONPATH": str(Path(machine.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
