"""The benchmark of GPUs, as far as a CPU can run it, in its short form; no times are asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT / "sample_data" / "blink"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="ends processes as POSIX does")


def measure(out: Path, parts: str, *options: str, device: str = "cpu") -> tuple[int, Any, str]:
    """The exit code, what is in gpu.json, and gpu.md."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--parts", parts, *options]
    command += ["--device", device, "--clips", str(CLIPS), "--out", str(out), "--copies", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (out / "gpu.json").exists(), done.stderr
    report = json.loads((out / "gpu.json").read_text())
    table = (out / "gpu.md").read_text()
    assert table.strip() == done.stdout.strip()
    return done.returncode, report["parts"], table


def test_extraction(tmp_path: Path) -> None:
    code, parts, table = measure(tmp_path, "thin_resnet", "--short", "--seconds", "900")
    assert code == 0, parts
    found = parts["thin_resnet"]["median"]
    for name in ("pipeline_of_slower", "extract_of_slower", "extract_of_peer"):
        assert found[name] > 0
    assert found["clips"] == 4
    assert "times a plain script's rate" in table


def test_everything_else(tmp_path: Path) -> None:
    wanted = "machine,tests,precision,decoders,training"
    code, parts, table = measure(tmp_path, wanted, "--short", "--seconds", "900")
    assert code == 0, parts
    assert parts["machine"]["doctor"]["decoder pyav"].startswith("ok")
    assert set(parts["tests"]["counts"]) <= {"skipped", "passed", "deselected"}
    for network in ("resnet50", "thin_resnet"):
        found = parts["precision"][network]
        assert found["precisions"]["fp32"]["least"] > 0.9999
        assert found["precisions"]["bf16"]["least"] > 0.999
        assert found["other_frames"] < found["precisions"]["bf16"]["least"]
    decoders = parts["decoders"]
    assert decoders["decoders"]["pyav"]["of_pyav"] == 1
    assert {"decord", "torchcodec"} <= decoders["skipped"].keys() | decoders["decoders"].keys()
    assert parts["training"]["ways"]["fp32"]["of_fp32"] == 1
    assert "seconds per epoch" in table


def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """Without CUDA, or without time, and with what was found before in both cases."""
    code, parts, table = measure(tmp_path, "training,decoders", "--short", device="cuda:99")
    assert code == 1
    assert "error" in parts["training"]
    assert "Failed:\n\n- training: " in table
    assert parts["decoders"]["decoders"]["pyav"]["clips"] == 2
    code, parts, table = measure(tmp_path, "machine", "--seconds", "0.1")
    assert code == 1
    assert parts["machine"]["error"] == "cut off after 0 s"


def test_its_script_takes_what_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="this environment has no pip")
    options = ["--device", "cpu", "--short", "--copies", "2", "--parts", "decoders"]
    command = [str(ROOT / "benchmarks" / "gpu.sh"), *options, "--out", str(tmp_path / "out")]
    variables = {**os.environ, "PYTHON": sys.executable, "VENV": str(tmp_path / "venv")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| pyav |" in (tmp_path / "out" / "gpu.md").read_text()


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_copies_differ_and_show_the_same(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from gpu import copies

    folder = tmp_path / "sources"
    folder.mkdir()
    with av.open(str(folder / f"a{suffix}"), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            image = np.full((48, 64, 3), 12 * number, np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        target.mux(stream.encode())
    copies(Namespace(clips=folder, copies=3), tmp_path / "copies")
    made = sorted((tmp_path / "copies").iterdir())
    assert len({each.read_bytes() for each in made}) == 3

    def frames(path: Path) -> Any:
        return read_frames(FrameRequest(str(path), "stride:1", 1000), "pyav")

    expected = frames(folder / f"a{suffix}")
    assert len(expected.times) == 20
    for each in map(frames, made):
        assert np.array_equal(each.times, expected.times)
        assert np.array_equal(each.pixels, expected.pixels)
        assert each.warnings == expected.warnings
