"""Features, models, runs and comparisons of an earlier version are good for this one.

They lie in ``yesterday/``, whose ``make.sh`` makes them anew; ``expected.json`` is what the version
that made them answered.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
YESTERDAY = ROOT / "tests" / "yesterday"
EXPECTED = json.loads((YESTERDAY / "expected.json").read_text("utf-8"))
FEATURES, MODELS = EXPECTED["features"], EXPECTED["models"]
NEAR = 1e-4  # between scores

Vidfuse = Callable[..., dict[str, Any]]


@pytest.fixture
def yesterday(tmp_path: Path) -> Path:
    """A folder to work in, with copies of all files and the dataset that they were made of."""
    for name in ("cache", "models", "run", "comparison"):
        shutil.copytree(YESTERDAY / name, tmp_path / name)
    clips = tmp_path / "clips"
    shutil.copytree(YESTERDAY / "frames", clips / "frames")
    shutil.copyfile(YESTERDAY / "clips.csv", clips / "manifest.csv")
    with (YESTERDAY / "clips.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if not (clips / row["path"]).exists():
                (clips / row["path"]).parent.mkdir(exist_ok=True)
                shutil.copyfile(ROOT / "sample_data" / row["path"], clips / row["path"])
    return tmp_path


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """One process for all commands, which change what they find as only a program may."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def vidfuse(process: ProcessPoolExecutor, yesterday: Path) -> Vidfuse:
    """A command, as it is typed; gives its result."""

    def run(*words: str) -> dict[str, Any]:
        code, out, err = process.submit(carry_out, words, yesterday).result()
        assert not code, err
        result: dict[str, Any] = json.loads(out)
        return result

    return run


def carry_out(words: tuple[str, ...], folder: Path) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of a command, within this process."""
    from vidfuse.cli.app import main

    os.chdir(folder)
    os.environ["VIDFUSE_CACHE"] = str(folder / "cache")
    sys.argv = ["vidfuse", *words, "--format", "json"]
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    code: object = None
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        kept = sys.stdout, sys.stderr  # the program puts its own in their place
        try:
            main()
        except SystemExit as end:
            code = end.code
        for stream in (sys.stdout, sys.stderr, *kept):
            stream.flush()
    return code, Path("out").read_text("utf-8"), Path("err").read_text("utf-8")


def entries(yesterday: Path) -> set[str]:
    cache = yesterday / "cache"
    return {str(path.relative_to(cache)) for path in cache.glob("*/**/*.*") if path.is_file()}


def training(name: str) -> list[str]:
    model = MODELS[name]
    return [*FEATURES[model["features"]]["options"], *model["options"]]


def test_something_is_tried():
    assert len(FEATURES) == 4
    assert len(MODELS) == 8
    assert sum(1 for _ in (YESTERDAY / "cache").glob("*/*/*.safetensors")) > 60


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_found(yesterday: Path, vidfuse: Vidfuse, name: str):
    before = entries(yesterday)
    found = vidfuse("extract", "clips", *FEATURES[name]["options"])
    assert (found["computed"], found["reused"]) == (0, FEATURES[name]["clips"])
    assert entries(yesterday) == before


@pytest.mark.parametrize("name", MODELS)
def test_training_computes_no_features(yesterday: Path, vidfuse: Vidfuse, name: str):
    before = entries(yesterday)
    # The refit learns from mirrored validation clips, too, which yesterday's training did not.
    more = ("--epochs", "1", "--no-refit", "--out", "new")
    found = vidfuse("train", "clips", *training(name), *more)
    assert found["computed"] == 0
    assert found["reused"] > 0
    assert entries(yesterday) == before


@pytest.mark.parametrize("kept", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("name", MODELS)
def test_models_answer_as_they_did(yesterday: Path, vidfuse: Vidfuse, name: str, kept: bool):
    before = entries(yesterday)
    expected = MODELS[name]["scores"]
    model = ["--model", f"models/{name}.safetensors", "--top", "9"]
    found = vidfuse("predict", *expected, *model, *([] if kept else ["--no-cache"]))["records"]
    assert [record["path"] for record in found] == list(expected)
    for record in found:
        assert record["ok"], record["error"]
        scores = {each["label"]: each["score"] for each in record["top"]}
        assert scores == pytest.approx(expected[record["path"]], abs=NEAR)
        assert record["label"] == max(scores, key=lambda label: scores[label])
    assert entries(yesterday) == before


@pytest.mark.parametrize("name", MODELS)
def test_measuring_finds_what_it_found(yesterday: Path, vidfuse: Vidfuse, name: str):
    """The clips that a model has seen, too, which it knows by their content."""
    before = entries(yesterday)
    subset = "all" if "--folds" in MODELS[name]["options"] else "auto"
    model = f"models/{name}.safetensors"
    found = vidfuse("evaluate", "clips", "--model", model, "--subset", subset)
    expected = MODELS[name]["evaluate"]
    assert {each: found[each] for each in expected} == pytest.approx(expected)
    assert entries(yesterday) == before


def test_a_run_that_was_cut_off_is_left_as_it_is(yesterday: Path, process: ProcessPoolExecutor):
    """Training has changed since: its first epochs would not fit the others."""
    _set(yesterday / "run" / "run.json", "dataset", yesterday / "clips")
    before = {path: path.read_bytes() for path in (yesterday / "run").iterdir() if path.is_file()}
    code, _, said = process.submit(carry_out, ("train", "--resume", "run"), yesterday).result()
    assert code == 2
    assert "begun by a version that trained otherwise" in said
    assert {path: path.read_bytes() for path in before} == before


def test_a_comparison_makes_its_fits_anew(yesterday: Path, vidfuse: Vidfuse):
    """For the same reason; the features are kept."""
    _set(yesterday / "comparison" / "results.json", "dataset_path", yesterday / "clips")
    folder = yesterday / "comparison" / "fits"
    before = {path.name for path in folder.iterdir()}
    options = [*EXPECTED["comparison"]["options"], "--jobs", "1", "--out", "comparison"]
    found = vidfuse("compare", "clips", *options)
    made = sorted(name.partition("-")[0] for name in {*os.listdir(folder)} - before)
    assert made == ["gru", "gru", "mean", "mean"]
    accuracy = {row["name"]: row["accuracy"] for row in found["heads"]}
    assert accuracy == pytest.approx(EXPECTED["comparison"]["accuracy"], abs=0.5)


def test_a_comparison_takes_the_encoder_that_is_the_default_now(yesterday: Path, vidfuse: Vidfuse):
    """What another encoder was compared on is neither mixed with it nor lost."""
    _set(yesterday / "comparison" / "results.json", "dataset_path", yesterday / "clips")
    fits = yesterday / "comparison" / "fits"
    before = {path.name: path.read_bytes() for path in fits.iterdir()}
    options = EXPECTED["comparison"]["options"]
    assert options[:2] == ["--backbone", "thin_resnet"]
    options = [*options[2:], "--heads", "mean", "--jobs", "1", "--out", "comparison"]
    found = vidfuse("compare", "clips", *options)
    assert found["protocol"]["spec"]["backbone"] == "thin_efficientnet"
    after = {path.name: path.read_bytes() for path in fits.iterdir()}
    assert {name: after.get(name) for name in before} == before
    made = [name.partition("-")[0] for name in after.keys() - before.keys()]
    assert made == ["mean", "mean"]


def _set(path: Path, name: str, place: Path) -> None:
    """Let a file say that the dataset lies where this test has it."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {name: str(place)}), "utf-8")
