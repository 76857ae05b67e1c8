"""``vidfuse adapt`` on a few clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vidfuse.cli.adapt import app
from vidfuse.errors import UserError

QUICK = (
    "--teacher", "resnet18", "--teacher-weights", "random", "--crops", "160", "--epochs", "3",
    "--lr", "5e-4",
)  # fmt: skip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of 27 clips."""
    source = Path(__file__).parents[2] / "sample_data"
    for clip in source.glob("*/g0[1-3]_1.mp4"):
        (tmp_path / "clips" / clip.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / "clips" / clip.parent.name)
    return tmp_path / "clips"


def run(*arguments: object, code: int = 0) -> str:
    words = [*map(str, arguments), *QUICK, "--workers", "1", "--device", "cpu"]
    answer = CliRunner().invoke(app, words)
    if answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    assert answer.exit_code == code, answer.output
    return answer.stdout


def test_json_and_text(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    report = json.loads(run(clips, "--out", out, "--format", "json"))
    assert (report["out"], report["teacher"], report["epochs"]) == (str(out), "resnet18", 3)
    assert report["after"]["r2"] > report["before"]["r2"]
    text = run(clips, "--out", out)
    assert f"vidfuse train DATASET --backbone thin_efficientnet --weights {out}" in text
    assert "R² of its features" in text


def test_what_cannot_be_read_is_counted_and_ends_with_1(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = iter((0.1, 0.2, 0.3, 0.4))  # on so few clips it may fall by chance
    found = lambda *_: {"r2": next(rising), "neighbours": 0.5}  # noqa: E731
    monkeypatch.setattr("vidfuse.adaptation.run.agreement", found)
    torn = min(clips.rglob("*.mp4"))
    torn.write_bytes(torn.read_bytes()[:100])
    out = tmp_path / "mine.safetensors"
    said = run(clips, "--out", out, "--max-failed", "0.01", "--format", "json", code=1)
    assert json.loads(said)["failed"] == 1
    assert out.exists()
    run(clips, "--out", out, "--max-failed", "0.5")


def test_no_videos_are_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "no video in this folder"), ("gone", "no such file or folder")):
        words = [str(tmp_path / name), "--out", str(tmp_path / "mine.safetensors")]
        answer = CliRunner().invoke(app, words)
        assert isinstance(answer.exception, UserError)
        told = f"no videos to learn from: {tmp_path / name}: {reason}"
        assert answer.exception.message == told
        assert answer.exception.exit_code == 2
