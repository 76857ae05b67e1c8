"""``train(head="auto")``: what chooses, what is left alone, and what comes out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from heard import Heard
from safetensors.torch import load_file

import vidfuse
from vidfuse.atomic import append_line
from vidfuse.comparison import auto, fits
from vidfuse.comparison.auto import HEADS, candidates_of
from vidfuse.comparison.race import Race
from vidfuse.errors import UserError
from vidfuse.heads import HEADS as KNOWN
from vidfuse.results import Choice
from vidfuse.training import folds as folds_module
from vidfuse.training.config import TrainConfig
from vidfuse.training.steps import new_fit

QUICK = {
    **{"backbone": "resnet18", "weights": "random", "layer": "layer1", "size": 32, "frames": 4},
    **{"epochs": 3, "workers": 1, "device": "cpu", "head": "auto"},
}
FEW = (("mean", 1), ("lstm", 1), ("max", 1))


@pytest.fixture
def grouped(dataset, tmp_path):
    """Eight groups with a clip of each class."""
    clips = sorted(dataset.rglob("*.mkv"), key=lambda path: path.name)
    rows = [f"{path},{path.parent.name},g{i // 3}" for i, path in enumerate(clips)]
    manifest = tmp_path / "grouped.csv"
    manifest.write_text("\n".join(["path,label,group", *rows]))
    return manifest


@pytest.fixture
def train(grouped, shared_cache, tmp_path, monkeypatch):
    """Chooses among three candidates, and trains, in one process."""
    monkeypatch.setattr(auto, "HEADS", FEW)
    monkeypatch.setattr("vidfuse.comparison.run.cores", lambda: 1)

    def run(**settings):
        chosen = {**QUICK, "cache": shared_cache, "out": str(tmp_path / "run"), **settings}
        return vidfuse.train(grouped, **chosen)

    return run


@pytest.fixture
def races(monkeypatch):
    """The races that were run."""
    seen = []
    begin = Race.run

    def noted(self, pool):
        seen.append(self)
        return begin(self, pool)

    monkeypatch.setattr(Race, "run", noted)
    return seen


def stripped(choice):
    """A choice without what the clock says."""
    found = choice.to_dict()
    del found["seconds"]
    for each in found["tried"]:
        del each["seconds"]
    return found


def test_candidates_are_known_heads_on_small_grids():
    assert {head for head, _ in HEADS} <= set(KNOWN)
    assert {grid for _, grid in HEADS} == {1, 2}
    assert len(set(HEADS)) == len(HEADS)
    both = candidates_of(TrainConfig(head="auto"), ["a", "b"])
    assert len(both) == 2 * len(HEADS)
    assert [(each.head, each.backbone) for each in both[:3]] == [
        *(("lstm", "a"), ("lstm", "b"), ("mean", "a"))
    ]
    on_four = candidates_of(TrainConfig(head="auto", grid="4"), ["a"])
    assert {each.grid for each in on_four} == {4}
    assert len({each.head for each in on_four}) == len(on_four), "no head twice"


def test_what_is_chosen_is_trained_and_measured_on_clips_that_nothing_saw(
    train, races, fitted, grouped, tmp_path
):
    heard = Heard()
    result = train(reporter=heard)
    choice = result.choice
    assert (choice.head, choice.grid, choice.backbone) == (result.head, 1, "resnet18")
    assert choice.judged
    assert choice.reason in heard.infos
    assert [each.outcome for each in choice.tried].count("chosen") == 1
    assert {(each.head, each.grid) for each in choice.tried} == set(FEW)
    best = max(each.accuracy for each in choice.tried if each.folds == choice.folds)
    assert choice.tried[0].accuracy == best
    assert (result.computed, result.reused) in {(result.clips, 0), (0, result.clips)}
    assert result.test.in_training == 0
    assert result.test.clips == result.split["test"] > 0

    # What chose has neither clips nor groups with the test part in common.
    (race,) = races
    chose = {race.plan.clips[row] for rows in race.plan.splits[0] for row in rows["test"]}
    assert len(chose) == choice.clips == result.clips
    assert len(race.plan.clips) == result.clips
    groups = {clip.group for clip in chose}
    assert len(groups) < 8
    for rows in race.plan.splits[0]:
        parts = [{race.plan.clips[row].group for row in rows[part]} for part in rows]
        assert sum(map(len, parts)) == len(groups), "inner folds divide by group"
    assert {task.candidate for task in fitted} == set(race.costs)

    run = tmp_path / "run"
    kept = json.loads((run / "auto.json").read_text())
    assert kept["choices"] == [choice.to_dict()]
    assert kept["test"]["accuracy"] == result.test.accuracy
    assert {"fits", "state.pt"} & {path.name for path in run.iterdir()} == set()
    assert not list(run.glob("features-*"))
    chosen = tomllib.loads((run / "config.toml").read_text())
    assert (chosen["head"], chosen["grid"], chosen["backbone"]) == (choice.head, "1", "resnet18")
    again = vidfuse.train(grouped, **{**chosen, "out": str(tmp_path / "again")})
    one, other = (load_file(each.model) for each in (result, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.choice is None
    assert "choice" not in again.to_dict()


def test_the_same_seed_chooses_the_same(train, tmp_path):
    one, other = (train(out=str(tmp_path / name)) for name in ("one", "other"))
    assert stripped(one.choice) == stripped(other.choice)


def test_several_encoders(train, tmp_path):
    result = train(backbone="resnet18, resnet34", epochs=1)
    tried = {(each.backbone, each.head) for each in result.choice.tried}
    assert tried == {(name, head) for name in ("resnet18", "resnet34") for head, _ in FEW}
    assert result.spec["backbone"] == result.choice.backbone
    with vidfuse.load_model(tmp_path / "run") as model:
        assert model.spec.backbone == result.choice.backbone


def test_a_budget_that_is_too_small_takes_lstm_with_a_warning(train):
    heard = Heard()
    result = train(budget="0.0001s", reporter=heard)
    assert (result.head, result.choice.judged) == ("lstm", False)
    assert any("too small to judge even `lstm`" in line for line in heard.warnings)
    assert result.test is not None


def test_an_encoder_that_cannot_be_used_is_told_before_any_work(train, tmp_path, monkeypatch):
    monkeypatch.setattr("vidfuse.backbones.find_spec", lambda name: None)
    monkeypatch.setattr("vidfuse.features.extract.Extractor.run", None)
    with pytest.raises(UserError, match="efficientnet_lite1"):
        train(backbone="thin_resnet,efficientnet_lite1", weights=None, layer=None, size=None)
    assert not (tmp_path / "run" / "auto.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "soon"}, "budget: 'soon' is not a time such as 90s, 10m or 1h30m"),
        ({"head": "lstm", "budget": "5m"}, "--budget is the time in which --head auto chooses"),
        ({"head_options": {"hidden": 8}}, "head_options: they belong to one head"),
        ({"backbone": "resnet18,resnet81"}, "backbone: unknown backbone 'resnet81'"),
        ({"weights": "own.pth", "backbone": "resnet18,resnet34"}, "belongs to one encoder"),
        ({"head": "lstm", "backbone": "resnet18,resnet34"}, "unknown backbone"),
        ({"lr": -1.0, "epochs": 0}, "2 problems"),
        ({"folds": 9}, "8 groups cannot make 9 folds"),
    ],
)
def test_what_is_refused(train, fitted, settings, message):
    with pytest.raises(UserError) as error:
        train(**settings)
    assert message in str(error.value)
    assert not fitted


def test_too_few_groups_to_choose_by(dataset, shared_cache, tmp_path):
    clips = sorted(dataset.rglob("*.mkv"), key=lambda path: path.name)
    rows = [f"{path},{path.parent.name},g{i // 8}" for i, path in enumerate(clips)]
    manifest = tmp_path / "few.csv"
    manifest.write_text("\n".join(["path,label,group", *rows]))
    with pytest.raises(UserError, match="too few to choose a head by") as error:
        vidfuse.train(manifest, **{**QUICK, "cache": shared_cache})
    assert "--head" in str(error.value.hint)
    assert error.value.message.count(str(manifest)) == 1
    assert "groups cannot make folds" in error.value.message


def test_an_error_of_one_of_several_encoders_names_it(dataset, shared_cache):
    options = {
        **QUICK,
        "cache": shared_cache,
        "backbone": "resnet18,thin_resnet",
        "layer": "maxpool",
    }
    with pytest.raises(UserError, match="with thin_resnet: unknown layer 'maxpool'"):
        vidfuse.train(dataset, **options)


def interrupted_after(monkeypatch, fitted, count):
    """Ctrl-C in the fit of a choice behind so many."""
    run = fits.FitRunner.run

    def interrupt(self, task, *more):
        if len(fitted) == count:
            raise KeyboardInterrupt
        return run(self, task, *more)

    monkeypatch.setattr(fits.FitRunner, "run", interrupt)


def test_ctrl_c_while_it_chooses(train, fitted, monkeypatch, tmp_path):
    whole = train(out=str(tmp_path / "whole"))
    done = len(fitted)
    fitted.clear()
    heard = Heard()
    with monkeypatch.context() as patch:
        interrupted_after(patch, fitted, 5)
        with pytest.raises(KeyboardInterrupt):
            train(reporter=heard)
    run = tmp_path / "run"
    assert heard.warnings[-1] == (
        f"interrupted: 5 fits of the choice are kept; go on with: vidfuse train --resume {run}"
    )
    with pytest.raises(UserError, match="not with others for lr"):
        vidfuse.train(resume=run, lr=0.5)
    with pytest.raises(UserError, match="holds a run that was cut off"):
        train()
    result = vidfuse.train(resume=run)
    assert len(fitted) == done, "nothing is done twice"
    assert stripped(result.choice) == stripped(whole.choice)
    one, other = (load_file(each.model) for each in (result, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UserError, match="this run has ended"):
        vidfuse.train(resume=run)


def test_ctrl_c_while_the_choice_is_fitted(train, fitted, monkeypatch, tmp_path):
    logged = []

    def interrupt(path, line, advice):
        logged.append(line)
        if len(logged) == 2:
            raise KeyboardInterrupt
        append_line(path, line, advice)

    with monkeypatch.context() as patch:
        patch.setattr("vidfuse.training.steps.append_line", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train()
    done = len(fitted)
    heard = Heard()
    result = vidfuse.train(resume=tmp_path / "run", reporter=heard)
    assert len(fitted) == done, "the choice is made"
    assert "Resuming after epoch 1" in heard.infos
    assert result.choice is not None
    assert result.choice.judged
    assert result.test is not None


def test_a_damaged_file_of_a_choice(train, fitted, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        interrupted_after(patch, fitted, 1)
        with pytest.raises(KeyboardInterrupt):
            train()
    file = tmp_path / "run" / "auto.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(UserError, match=r"auto.json: cannot be used") as error:
        vidfuse.train(resume=tmp_path / "run")
    assert "--head auto" in str(error.value.hint)


def test_each_fold_chooses_without_the_clips_that_it_tests(train, races, tmp_path):
    result = train(folds=2)
    assert len(result.choices) == len(races) == 3
    assert sum(sum(row) for row in result.confusion_matrix) == 24
    for race, fold in zip(races, result.folds, strict=False):
        splits = race.plan.splits[race.number]
        chose = {race.plan.clips[row].group for rows in splits for row in rows["test"]}
        assert not chose & set(fold.groups)
        assert len(chose) + len(fold.groups) == 8
    assert result.choices[-1].clips == 24
    assert result.head == result.choices[-1].head
    chosen = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert chosen["head"] == result.head
    with vidfuse.load_model(Path(result.run)) as model:
        assert model.metadata["cross_validation"]["accuracy"] == result.accuracy
        assert model.metadata["config"]["head"] == result.head
    assert len(json.loads((tmp_path / "run" / "auto.json").read_text())["choices"]) == 3


def test_folds_that_chose_differently_read_what_they_chose(train, monkeypatch):
    """One fold another head on another encoder and grid than the model at the end."""
    made = iter((("max", "resnet34", 2), ("mean", "resnet18", 1), ("lstm", "resnet18", 1)))
    run = Race.run

    def choose(self, pool):
        choice = run(self, pool).to_dict()
        head, backbone, grid = next(made)
        return Choice.from_dict({**choice, "head": head, "backbone": backbone, "grid": grid})

    read = []
    fit = new_fit

    def noted(config, table, parts, classes, after=None):
        found = fit(config, table, parts, classes, after=after)
        read.append((config.head, found.head.name, found.head.grid, len(parts["train"])))
        return found

    monkeypatch.setattr(Race, "run", choose)
    monkeypatch.setattr(folds_module, "new_fit", noted)
    result = train(folds=2, backbone="resnet18,resnet34", budget="20s", epochs=1)
    refitted = [("max", 2), ("max", 2), ("mean", 1), ("mean", 1), ("lstm", 1)]
    assert [(each[1], each[2]) for each in read] == refitted
    assert (result.head, result.spec["backbone"]) == ("lstm", "resnet18")
    with vidfuse.load_model(Path(result.run)) as model:
        assert model.spec.backbone == "resnet18"
