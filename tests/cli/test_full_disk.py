"""A disk without room, or a limit of the size of files: told by name, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from program import PATIENCE, TINY, Answer, environment

resource = pytest.importorskip("resource")
NETWORK = TINY[: TINY.index("--epochs")]


def run_with_small_files(feature_cache: Path, limit: int, *arguments: object) -> Answer:
    """Run the program where no file may be larger than ``limit`` bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "vidfuse", *map(str, arguments)],
        capture_output=True,
        env=environment(feature_cache, {}),
        timeout=PATIENCE,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    return Answer(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


def refused(answer: Answer, path: Path) -> None:
    """The file is named, with the reason and what to do."""
    assert answer.code == 2, answer.err
    error, hint = answer.err[answer.err.index("Error: ") :].split("\n", 1)
    assert re.fullmatch(rf"Error: cannot write {re.escape(str(path))} \(.+\)", error)
    assert "None" not in error
    assert "room" in hint


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("limit", "file"),
    [(100, "config.toml"), (1200, "metrics.jsonl"), (100_000, "model.safetensors")],
)
def test_train(dataset, feature_cache, tmp_path, limit, file):
    """The features are in the cache already; what cannot be kept is the run."""
    run = tmp_path / "run"
    # Before a refit, the state is kept, which is larger than the model.
    more = ("--epochs", 30) if file == "metrics.jsonl" else ("--no-refit",)
    refused(
        run_with_small_files(feature_cache, limit, "train", dataset, *TINY, *more, "--out", run),
        run / file,
    )
    assert not list(run.glob("*.partial"))
    assert not (run / "model.safetensors").exists()
    for path in run.glob("metrics.jsonl"):
        assert path.read_text().endswith("}\n")


@pytest.mark.usefixtures("trained")
def test_a_run_goes_on_when_there_is_room_again(vidfuse, dataset, feature_cache, tmp_path):
    """Here the state is what is too large; what was trained until then is not needed again."""
    run = tmp_path / "run"
    arguments = ("train", dataset, *TINY, "--epochs", 300, "--patience", 0, "--out", run)
    refused(run_with_small_files(feature_cache, 100_000, *arguments), run / "state.pt")
    answer = vidfuse("train", "--resume", run)
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == [
        *("config.toml", "metrics.jsonl", "model.safetensors", "run.json")
    ]


@pytest.mark.usefixtures("trained")
def test_extract(dataset, feature_cache, tmp_path):
    out = tmp_path / "features"
    arguments = ("extract", dataset, *NETWORK, "--grid", 1, "--out", out)
    answer = run_with_small_files(feature_cache, 500, *arguments)
    refused(answer, out / re.findall(r"\w+\.npy", answer.err)[0])
    assert not list(out.iterdir())


def test_the_cache(dataset, tmp_path):
    arguments = ("extract", dataset, *NETWORK, "--grid", 1)
    answer = run_with_small_files(tmp_path / "cache", 800, *arguments)
    refused(answer, Path(re.findall(r"cannot write (\S+)", answer.err)[0]))
    assert "--cache" in answer.err
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_predict_answers_where_the_cache_cannot_be_written(
    vidfuse, trained, clips, feature_cache, tmp_path
):
    """A warning, once; what the cache has is used."""
    arguments = ("predict", *clips[:3], "--model", trained.run, "--format", "jsonl")
    usual = [json.loads(line) for line in vidfuse(*arguments).out.splitlines()]
    for cache in (tmp_path / "new", feature_cache):
        answer = run_with_small_files(cache, 100, *arguments)
        assert answer.code == 0, answer.err
        assert [json.loads(line) for line in answer.out.splitlines()] == usual
        told = [line for line in answer.err.splitlines() if "not kept in the cache" in line]
        assert len(told) == (cache is not feature_cache)
        assert all("cannot write" in line and str(cache) in line for line in told)
