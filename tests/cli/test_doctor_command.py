"""``vidfuse doctor``, on this machine and with broken libraries."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2]
CHECKS = [
    "python", "packages", "torch", "torchvision", "bundled weights", "gpu", "instructions",
    "cores", "memory", "decoder pyav", "decoder decord", "decoder decord-gpu",
    "decoder torchcodec", "decoder torchcodec-cuda",
    "cache", "disk",
]  # fmt: skip


def broken(tmp_path: Path, **code: str) -> dict[str, str]:
    """An environment with packages that go wrong while they are imported."""
    for name, text in code.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    return {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(PACKAGE)))}


def test_a_sound_installation(vidfuse, feature_cache):
    answer = vidfuse("doctor", "--format", "json")
    report = json.loads(answer.out)
    assert (answer.code, report["ok"]) == (0, True)
    found = {check.pop("name"): check for check in report["checks"]}
    assert set(CHECKS) <= found.keys()
    assert {"status", "summary", "values", "fix"} == found["torch"].keys()
    assert found["cache"]["values"]["path"] == str(feature_cache)
    assert found["decoder pyav"]["values"]["used"]
    assert found["cores"]["values"]["usable"] >= 1
    assert "Traceback" not in answer.err


def test_each_broken_library_is_told_with_its_repair(vidfuse, tmp_path):
    env = broken(
        tmp_path,
        torchvision="raise RuntimeError('operator torchvision::nms does not exist')",
        av="raise ImportError('libavcodec.so.62: cannot open shared object file')",
        decord="import os; os.abort()",
    )
    answer = vidfuse("doctor", env=env)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[-1].startswith("2 broken, 1 warning")
    assert {line.split()[0] for line in lines[:-1] if line[:1].strip()} == {
        "ok", "broken", "warning",
    }  # fmt: skip
    assert "operator torchvision::nms does not exist" in answer.out
    assert "pip install torch==" in answer.out
    assert "pip install --force-reinstall av" in answer.out
    assert "importing it crashed (SIGABRT)" in answer.out or os.name == "nt"
    assert "Traceback" not in answer.out + answer.err


@pytest.mark.parametrize(
    ("package", "error", "names"),
    [
        ("torch", "ModuleNotFoundError('no', name='torch')", {"torch", "torchvision"}),
        ("numpy", "ImportError('not for this Python')", {"packages", "cache"}),
    ],
)
def test_it_works_without_what_all_else_needs(vidfuse, tmp_path, package, error, names):
    env = broken(tmp_path, **{package: f"raise {error}"})
    answer = vidfuse("doctor", "--format", "json", env=env)
    assert answer.code == 1, answer.err
    report = json.loads(answer.out)
    wrong = {check["name"]: check for check in report["checks"] if check["status"] == "broken"}
    assert names <= wrong.keys()
    assert all(check["fix"] for check in wrong.values())


def test_a_cache_that_cannot_be_used(vidfuse, tmp_path):
    (tmp_path / "file").write_text("")
    answer = vidfuse("doctor", "--cache", str(tmp_path / "file"))
    assert answer.code == 1
    assert "cannot be written" in answer.out
    assert "--cache or VIDFUSE_CACHE" in answer.out


def test_it_imports_nothing_heavy_itself(vidfuse):
    text = vidfuse("doctor", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"}).err
    imported = {line.rsplit("|", 1)[-1].strip() for line in text.splitlines()}
    assert not {"torch", "torchvision", "numpy", "av", "decord", "vidfuse.doctor"} & imported


@pytest.mark.parametrize(
    ("package", "repair"),
    [("torch", "Run: pip install --force-reinstall torch"), ("numpy", "vidfuse doctor")],
)
def test_a_broken_library_is_told_with_the_way_to_repair_it(
    vidfuse, dataset, tmp_path, package, repair
):
    env = broken(tmp_path, **{package: "raise ImportError('libx.so: cannot open')"})
    answer = vidfuse("train", dataset, env=env)
    assert (answer.code, answer.out) == (2, "")
    assert "libx.so" in answer.err
    assert repair in answer.err
    assert "Traceback" not in answer.err
