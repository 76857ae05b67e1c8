"""How much somebody reads who follows a command through the package: see ``walk.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
WALK = ROOT / "tests" / "walk.py"
MODEL = ROOT / "tests" / "yesterday" / "models" / "lstm.safetensors"
SAMPLE_DATA = ROOT / "sample_data"
CLIP = SAMPLE_DATA / "wave" / "g12_1.mp4"
# The aim for `predict` is 150 functions; docs/design.md says what the rest are for.
MOST = {
    "predict": {"functions": 190, "files": 35, "generators": 6},
    "train": {"functions": 220, "files": 45},
}
# Entered only where all groups happen to have the same accuracy.
BY_CHANCE = {"wilson_interval"}
# Tracing makes a process slower; nothing may be given up for that.
PATIENT = ("--time-limit", "600")


def run(*words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def walked(tmp_path: Path, *words: str | Path) -> tuple[dict[str, Any], str]:
    """What a command enters, and what it prints."""
    out = tmp_path / "walk.json"
    printed = run(WALK, "--json", out, *words, *PATIENT)
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found, printed


def hold(command: str, found: dict[str, Any]) -> None:
    """See that no limit is exceeded, and show where its functions are."""
    counts = {name: found[name] for name in ("functions", "files", "generators")}
    entered = {name for names in found["entered"].values() for name in names}
    counts["functions"] -= len(entered & BY_CHANCE)
    over = {name: most for name, most in MOST[command].items() if counts[name] > most}
    files = sorted(found["entered"].items(), key=lambda item: -len(item[1]))
    lines = [f"{len(names):4} {file}" for file, names in files]
    if over:
        shown = "\n".join([*lines, "generators:", *found["chain"]])
        pytest.fail(f"{command} enters {counts}, at most {over}\n{shown}", pytrace=False)


def test_predicting_a_new_clip(tmp_path: Path) -> None:
    command = ("predict", CLIP, "--model", MODEL, "--cache", tmp_path / "cache")
    found, printed = walked(tmp_path, *command)
    path, label, _ = printed.splitlines()[-1].split("\t")
    assert path == str(CLIP)
    assert label
    assert list((tmp_path / "cache").glob("*/*/*.safetensors")), "it was not cold"
    hold("predict", found)


def test_training_on_cached_features(tmp_path: Path) -> None:
    cache = ("--cache", tmp_path / "cache")
    run("-m", "vidfuse", "extract", SAMPLE_DATA, "--frames", "4", *cache)
    options = ("--frames", "4", "--epochs", "2", "--out", tmp_path / "run", *cache)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    found, _ = walked(tmp_path, "train", SAMPLE_DATA, *options)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert before == after, "features were computed"
    assert len(before) > 100
    hold("train", found)
