"""``vidfuse adapt`` on tiny clips."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from vidfuse.cli.adapt import app

QUICK = ("--teacher", "thin_resnet", "--weights", "random", "--views", "64", "--epochs", "1")


def run(*arguments: object, code: int = 0) -> str:
    words = [*map(str, arguments), *QUICK, "--frames", "16", "--workers", "1", "--device", "cpu"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == code, answer.output
    return answer.stdout


def test_json_and_text(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    report = json.loads(run(dataset, "--out", out, "--format", "json"))
    assert (report["out"], report["teacher"], report["epochs"]) == (str(out), "thin_resnet", 1)
    assert report["after"]["alignment"] > report["before"]["alignment"]
    text = run(dataset, "--out", out)
    assert f"vidfuse train DATASET --backbone thin_efficientnet --weights {out}" in text
    assert "alignment" in text


def test_what_cannot_be_read_is_counted_and_ends_with_1(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "torn.mp4").write_bytes(clips[0].read_bytes()[:100])
    inputs = (*clips, tmp_path / "torn.mp4", "--out", tmp_path / "mine.safetensors")
    assert json.loads(run(*inputs, "--format", "json", code=1))["failed"] == 1
    assert (tmp_path / "mine.safetensors").exists()
    run(*inputs, "--max-failed", "0.5")
