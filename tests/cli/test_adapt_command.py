"""``vidfuse adapt`` on tiny clips."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from vidfuse.cli.adapt import app

QUICK = (
    "--teacher", "resnet18", "--teacher-weights", "random", "--views", "200", "--epochs", "3",
    "--lr", "1e-3",
)  # fmt: skip


def run(*arguments: object, code: int = 0) -> str:
    words = [*map(str, arguments), *QUICK, "--frames", "16", "--workers", "1", "--device", "cpu"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == code, answer.output
    return answer.stdout


def test_json_and_text(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    report = json.loads(run(dataset, "--out", out, "--format", "json"))
    assert (report["out"], report["teacher"], report["epochs"]) == (str(out), "resnet18", 3)
    assert report["after"]["r2"] > report["before"]["r2"]
    text = run(dataset, "--out", out)
    assert f"vidfuse train DATASET --backbone thin_efficientnet --weights {out}" in text
    assert "R² of its features" in text


def test_what_cannot_be_read_is_counted_and_ends_with_1(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "torn.mp4").write_bytes(clips[0].read_bytes()[:100])
    inputs = (*clips, tmp_path / "torn.mp4", "--out", tmp_path / "mine.safetensors")
    assert json.loads(run(*inputs, "--format", "json", code=1))["failed"] == 1
    assert (tmp_path / "mine.safetensors").exists()
    run(*inputs, "--max-failed", "0.5")
