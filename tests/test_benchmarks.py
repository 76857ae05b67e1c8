"""Benchmarks of docs/performance.md, in their short forms; no times are asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("limit,peer", "of the limit"),
        ("growth", "ms per additional clip"),
        ("cache", "A finished extraction"),
        ("latency", "import torch"),
    ],
)
def test_its_short_form_works(tmp_path: Path, items: str, words: str) -> None:
    out = tmp_path / "speed.json"
    clips = [ROOT / "sample_data" / "blink" / f"g{group}_1.mp4" for group in (11, 12)]
    options: list[str | Path] = [
        "--items",
        items,
        "--networks",
        "thin_resnet",
        "--before",
        ROOT,
        "--out",
        out,
    ]
    command = [sys.executable, ROOT / "benchmarks" / "speed.py", *clips, "--short", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    report = json.loads(out.read_text())
    if items == "limit,peer":
        compared = report["extraction"]["thin_resnet"]["compared"]
        parts = ["decode_of_independent", "forward_of_independent", "times_sampled", "times_every"]
        parts += ("fraction_of_slower", "before_of_slower", "times_before")
        assert all(compared[part] > 0 for part in parts)
    if items == "latency":
        assert report["latency"]["cold"]["ratio to before"]["median"]["cpu"] > 0
    if items == "growth":
        assert [row["clips"] for row in report["growth"]["rows"]] == [2, 4]


def test_speeds_of_encoders_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    out = tmp_path / "encoders.json"

    def measured(*names: str) -> str:
        script = ROOT / "benchmarks" / "encoders.py"
        command: list[str | Path] = [sys.executable, script, "--out", out]
        command += ["--turns", "1", "--only", *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = measured("squeezenet1_1", "mnasnet0_5", "mnasnet0_5.IMAGENET1K_V1")
    assert first.count(" px |") == 2, "tags of one network share a line"
    name = "squeezenet1_1.IMAGENET1K_V1"
    before = json.loads(out.read_text())
    assert before[name]["frames_per_second"] > 0
    again = measured("squeezenet1_1", "s3d")
    assert json.loads(out.read_text())[name] == before[name]
    assert "| 16 × 224 px |" in again


def test_the_delay_of_live_streams() -> None:
    model = ROOT / "tests" / "yesterday" / "models" / "lstm.safetensors"
    video = ROOT / "sample_data" / "long" / "g13.mp4"
    command: list[str | Path] = [
        sys.executable,
        ROOT / "benchmarks" / "live.py",
        video,
        "--model",
        model,
    ]
    command += ["--seconds", "3", "--size", "160x90", "--step", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["pipe", "http"]
    assert all(int(row[1]) > 3 and 0 < float(row[2]) <= float(row[4]) for row in rows)
