"""Who is tested on what, and what makes one fit another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from vidfuse.comparison.config import CompareConfig
from vidfuse.comparison.plan import Candidate, Task, budget_key, fit_digests, make_plan
from vidfuse.comparison.scheduler import settings_of
from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.folds import make_folds
from vidfuse.features.spec import FeatureSpec
from vidfuse.settings import option
from vidfuse.training.config import TrainConfig

SPEC = FeatureSpec(
    decode="auto/1",
    sampling="uniform",
    frames=4,
    size=32,
    crop="center",
    backbone="resnet18",
    layer="layer1",
    weights="random",
    grid=2,
)
CLIPS = [
    Clip(Path(f"{label}/{group}.mp4"), label, f"g{group}") for group in range(8) for label in "ab"
]
LSTM = Candidate("lstm", "resnet18", 2)
TASK = Task(LSTM, 0, 0)


def planned(clips=CLIPS, seeds=2, contents=None):
    data = Dataset(Path("root"), "manifest", list(CLIPS))
    folds = [make_folds(data, 4, seed=seed) for seed in range(seeds)]
    return make_plan(clips, contents or [str(clip.path) for clip in clips], folds)


def test_every_clip_is_tested_once_by_seed_and_groups_stay_whole():
    plan = planned()
    for splits in plan.splits:
        tested = sorted(place for rows in splits for place in rows["test"])
        assert tested == list(range(len(CLIPS)))
        for rows in splits:
            parts = [{CLIPS[i].group for i in rows[part]} for part in ("train", "val", "test")]
            assert all(parts)
            assert sum(map(len, parts)) == 8
    assert plan.splits[0] != plan.splits[1], "each seed has folds of its own"
    held = np.stack(list(plan.held(1)))
    assert (held.sum(0) == 1).all()


def test_clips_that_cannot_be_read_are_in_no_part():
    plan = planned(clips=CLIPS[2:])
    assert max(i for splits in plan.splits for rows in splits for i in rows["train"]) == 13
    assert plan.labels.tolist() == [0, 1] * 7


def test_tasks_take_all_heads_through_a_fold_before_the_next():
    mean = Candidate("mean", "resnet18", 1)
    tasks = list(planned().tasks([mean, LSTM]))
    assert len(tasks) == 2 * 2 * 4
    assert tasks[:3] == [Task(mean, 0, 0), Task(LSTM, 0, 0), Task(mean, 0, 1)]


def key(plan=None, config=None, epochs=5, task=TASK, spec=SPEC):
    settings = settings_of(config or CompareConfig(), task.candidate, spec, epochs)
    return fit_digests(plan or planned(), {task.candidate: settings})[task]


def test_the_same_fit_has_the_same_key():
    assert key() == key(planned())
    # A longer or wider comparison uses what a shorter one did.
    assert key() == key(planned(seeds=3), CompareConfig(seeds=3, heads="gru", jobs=7, out="x"))
    # Where clips lie plays no part, what they hold does.
    moved = [replace(clip, path=Path("elsewhere") / clip.path) for clip in CLIPS]
    plan = planned()
    assert key(replace(plan, clips=moved)) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 6},
        {"spec": replace(SPEC, grid=4)},
        {"spec": replace(SPEC, weights="abc")},
        {"task": Task(replace(LSTM, head="gru"), 0, 0)},
        {"task": Task(replace(LSTM, backbone="resnet34"), 0, 0)},
        {"task": Task(LSTM, 1, 0)},
        {"task": Task(LSTM, 0, 1)},
        {"config": CompareConfig(lrs="0.1")},
        {"config": CompareConfig(dropouts="0.1")},
        {"config": CompareConfig(weight_decay=0.5)},
        {"config": CompareConfig(seed=1)},
        {"config": CompareConfig(frames=8)},
        {"config": CompareConfig(mirror=True)},
        {"config": CompareConfig(views=2)},
        {"plan": planned(contents=[f"{clip.path} changed" for clip in CLIPS])},
        {"plan": replace(planned(), clips=[replace(clip, label="a") for clip in CLIPS])},
    ],
    ids=str,
)
def test_whatever_decides_makes_another_key(change):
    assert key(**change) != key()


@dataclass
class NewSettings(CompareConfig):
    """What a later release may add."""

    novelty: str = option("this", "How something is done.")
    helpers: int = option(1, "Who helps.", affects_result=False)


def test_a_setting_that_is_new_makes_another_key_unless_it_says_that_it_does_not_matter():
    assert key(config=NewSettings(novelty="that")) != key(config=NewSettings())
    assert key(config=NewSettings(helpers=2)) == key(config=NewSettings())


def test_a_later_setting_makes_another_key_only_where_it_is_used():
    @dataclass
    class Later(CompareConfig):
        extras: int = option(0, "How much is added.", later=True)

    assert key(config=Later()) == key()
    assert key(config=Later(extras=1)) != key()


def test_a_new_setting_of_training_makes_another_key_even_where_a_comparison_has_it_not(
    monkeypatch,
):
    @dataclass
    class NewTraining(TrainConfig):
        optimizer: str = option("adamw", "Which one.")

    before = key()
    monkeypatch.setattr("vidfuse.comparison.config.TrainConfig", NewTraining)
    assert key() != before


def test_another_default_of_a_head_makes_another_key(monkeypatch):
    from vidfuse.heads.recurrent import LSTM
    from vidfuse.heads.registry import options_of

    before = key()
    known = options_of(LSTM)
    known["hidden"] = replace(known["hidden"], default=128)
    monkeypatch.setattr("vidfuse.comparison.plan.options_of", lambda cls: known)
    assert key() != before


def test_another_package_s_head_has_another_key_when_its_code_changes(monkeypatch, tmp_path):
    from vidfuse.heads import registry

    code = "from vidfuse.heads.pooling import Max\nclass Outside(Max):\n    name = 'outside'\n"
    module = tmp_path / "written_outside.py"
    module.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("outside", "written_outside:Outside", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    task = Task(replace(LSTM, head="outside"), 0, 0)
    before = key(task=task)
    assert key(task=task) == before
    module.write_text(f"{code}    parts = 1\n")
    assert key(task=task) != before


def test_a_budget_belongs_to_its_settings():
    plan, config = planned(), CompareConfig(budget="1m")
    first = budget_key(plan, config, {"mean": 1})
    assert first == budget_key(plan, replace(config, out="elsewhere"), {"mean": 1})
    assert first != budget_key(plan, replace(config, budget="2m"), {"mean": 1})
    assert first != budget_key(plan, config, {"mean": 1, "lstm": 2})
