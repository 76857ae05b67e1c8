"""``vidfuse adapt`` on tiny clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from vidfuse.cli.adapt import app

QUICK = (
    "--teacher", "resnet18", "--teacher-weights", "random", "--crops", "200", "--epochs", "3",
    "--seed", "2",
)  # fmt: skip


def run(*arguments: object, code: int = 0) -> str:
    words = [*map(str, arguments), *QUICK, "--frames", "16", "--workers", "1", "--device", "cpu"]
    answer = CliRunner().invoke(app, words)
    if answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
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


def test_what_cannot_be_read_is_counted_and_ends_with_1(dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "clips"))
    torn = min(folder.rglob("*.mp4"))
    torn.write_bytes(torn.read_bytes()[:100])
    out = tmp_path / "mine.safetensors"
    said = run(folder, "--out", out, "--max-failed", "0.01", "--format", "json", code=1)
    assert json.loads(said)["failed"] == 1
    assert out.exists()
    run(folder, "--out", out, "--max-failed", "0.5")
