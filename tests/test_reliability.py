"""The bench that docs/reliability.md is made with, in its short form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bench is for Linux")


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        ("damaged,crafted,models,resources", ["--count", "2"]),
        ("kills,swap", ["--count", "1", "--only", "extract"]),
    ],
)
def test_nothing_happens_that_should_not(tmp_path: Path, parts: str, options: list[str]) -> None:
    out = tmp_path / "reliability.json"
    clips = []
    if folder := os.environ.get("VIDFUSE_TEST_DATA"):
        clips = sorted(Path(folder, "odd_videos").glob("*.mp4"))[:2]
    words: list[str | Path] = [
        ROOT / "benchmarks" / "reliability",
        *clips,
        "--parts",
        parts,
        *options,
        "--out",
        out,
    ]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    report = json.loads(out.read_text())
    assert {row["part"] for row in report["rows"]} == set(parts.split(","))
    assert report["failures"] == []
