"""A run folder belongs to one training at a time, from the first thing written to the last."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import equal

import vidfuse
from vidfuse.errors import UserError
from vidfuse.runs import Run, named_run
from vidfuse.training import data, fit

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
QUICK: dict[str, Any] = {**CHEAP, "workers": 1, "epochs": 2, "head": "mean", "device": "cpu"}


def train(dataset: Path, cache: str, **settings: Any) -> dict[str, Any]:
    return vidfuse.train(dataset, **{**QUICK, "cache": cache, **settings}).to_dict()


def refusals(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, *calls: Any) -> list[str]:
    """Lets others come, once, when a training gets to a certain point; what they were told."""
    told: list[str] = []
    original = getattr(where, name)

    def hook(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(where, name, original)
        for call in calls:
            with pytest.raises(UserError) as error:
                call()
            told.append(error.value.message)
        return original(*arguments, **more)

    monkeypatch.setattr(where, name, hook)
    return told


@pytest.mark.parametrize("folds", [None, 2])
@pytest.mark.parametrize(
    ("where", "name"),
    [(data.TrainingData, "gather"), (fit.Fit, "__iter__")],
    ids=["early", "late"],
)
def test_another_training_is_refused(
    dataset: Path,
    shared_cache: str,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    folds: int | None,
) -> None:
    train(dataset, shared_cache, out="alone", seed=1, folds=folds)
    others = (
        lambda: train(dataset, shared_cache, out="run", seed=2, epochs=3),
        lambda: train(dataset, shared_cache, out="run", seed=3, folds=2),
    )
    told = refusals(monkeypatch, where, name, *others)
    train(dataset, shared_cache, out="run", seed=1, folds=folds)
    assert told == ["another training is at work in run"] * 2
    for each in ("config.toml", "run.json"):
        assert Path("run", each).read_text().replace('"run"', '"alone"') == (
            Path("alone", each).read_text()
        )
    lines = [Path(run, "metrics.jsonl").read_text().count("\n") for run in ("run", "alone")]
    assert lines[0] == lines[1]
    mine, theirs = (load_file(f"{run}/model.safetensors") for run in ("run", "alone"))
    assert all(equal(mine[name], theirs[name]) for name in mine)


def test_a_run_at_work_is_not_resumed(
    dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose folder has the usual name."""

    def resume() -> None:
        (run,) = Path("runs").iterdir()
        vidfuse.train(resume=run)

    told = refusals(monkeypatch, fit.Fit, "__iter__", resume)
    summary = train(dataset, shared_cache)
    assert told == [f"another training is at work in {summary['run']}"]


def test_a_folder_is_free_again_when_a_training_has_failed(
    dataset: Path, shared_cache: str
) -> None:
    with pytest.raises(UserError):
        train(dataset, shared_cache, out="run", weights="missing.pth")
    train(dataset, shared_cache, out="run")
    with pytest.raises(UserError, match="run already holds a model"):
        train(dataset, shared_cache, out="run")


def test_a_run_that_was_interrupted_is_resumed_and_not_removed(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for file in (run.model, run.state):  # Ctrl-C leaves both
        file.touch()
    with ExitStack() as stack, pytest.raises(UserError, match="holds a run that was cut") as error:
        named_run(str(run.folder), stack)
    assert f"vidfuse train --resume {run.folder}" in str(error.value.hint)


@pytest.mark.parametrize("folds", [None, 2])
def test_no_folder_is_left_of_a_training_that_cannot_begin(
    dataset: Path, shared_cache: str, folds: int | None
) -> None:
    with pytest.raises(UserError, match="missing"):
        train(Path("missing"), shared_cache, out="run", folds=folds)
    with pytest.raises(UserError, match="cannot be written to the settings"):
        train(dataset, "a\udcff", out="run", folds=folds)
    assert not Path("run").exists()
