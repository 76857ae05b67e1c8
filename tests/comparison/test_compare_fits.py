"""One task: nothing of the test fold is seen, and the orders of frames are what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidfuse.errors import UserError
from vidfuse.evaluation.compare.config import CompareConfig
from vidfuse.evaluation.compare.fits import Bench, _backwards, reorder
from vidfuse.evaluation.compare.kept import KINDS, Kept, Outcome
from vidfuse.evaluation.compare.plan import Task
from vidfuse.evaluation.compare.tables import features_of, load_table, save_table
from vidfuse.evaluation.compare.workload import Workload
from vidfuse.features.table import FeatureTable
from vidfuse.progress import Progress
from vidfuse.system import one_thread

TASK = Task("lstm", 0, 0)
FRAMES = 5


def make_table(clips=12, extra=0, lengths=None):
    """Clips of two classes: a number rises in one and falls in the other."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(clips + extra, FRAMES, 8, 1, 1, generator=generator) * 0.1
    rising = torch.linspace(-1, 1, FRAMES)[None, :, None, None]
    sign = torch.tensor([1.0, -1.0]).repeat(clips // 2)[:, None, None, None]
    features[:clips, :, 0] += 3 * sign * rising
    count = torch.full((clips + extra,), FRAMES) if lengths is None else torch.tensor(lengths)
    return FeatureTable(
        features=features.half().flatten(0, 1),
        firsts=torch.arange(clips + extra) * FRAMES,
        lengths=count,
        chosen=torch.arange(FRAMES).expand(clips + extra, -1).minimum(count[:, None] - 1),
        chosen_lengths=count.clone(),
        times=torch.arange(FRAMES, dtype=torch.float64).expand(clips + extra, -1),
        starts=torch.zeros(clips + extra, dtype=torch.float64),
        ends=torch.full((clips + extra,), FRAMES, dtype=torch.float64),
        jitter=False,
    )


def frames(table):
    """Features [N, K, D, g, g]."""
    return table.whole(torch.arange(len(table.lengths)))[0].float()


def save(table, path):
    """What `Tables.fill` leaves of a table."""
    features_of(path).write_bytes(table.features.numpy().tobytes())
    save_table(table, path)


SPLIT = {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [11, 8, 9, 10]}


@pytest.fixture
def bench(tmp_path):
    def make(table=None, splits=((SPLIT,),), twice=(), clips=12, **settings):
        path = tmp_path / "table.safetensors"
        save(table or make_table(), path)
        settings = {"frames": FRAMES, "lrs": "0.01", "dropouts": "0.2", "device": "cpu", **settings}
        return Bench(
            Workload(
                settings=CompareConfig.from_mapping(settings).to_dict(),
                grids={"lstm": 1, "mean": 1, "policy": 1},
                tables={"1": str(path)},
                labels=[0, 1] * (clips // 2),
                twice=list(twice),
                classes=2,
                splits=[list(each) for each in splits],
            )
        )

    return make


def test_it_learns_the_order_and_only_in_order(bench):
    split = {"train": [*range(16)], "val": [*range(16, 20)], "test": [*range(59, 19, -1)]}
    work = bench(make_table(60), splits=((split,),), clips=60)
    found = work.carry_out(TASK, epochs=15)
    truth = np.array([1, 0] * 20)
    right = {kind: (found.scores[kind].argmax(1) == truth).mean() for kind in KINDS}
    assert right["ordered"] > 0.95
    assert right["reversed"] < 0.05, "backwards, each class is the other"
    assert 0.2 < right["shuffled"] < 0.8
    assert 0.2 < right["tested_shuffled"] < 0.8
    for scores in found.scores.values():
        assert scores.shape == (40, 2)
        assert scores.sum(1) == pytest.approx(np.ones(40), abs=1e-5)
    assert found.facts["training_seconds"] > 0
    assert 1 <= found.facts["best_epoch"] <= 15


def test_what_is_tested_plays_no_part_in_training(bench):
    before = bench().carry_out(TASK, epochs=3)
    other = make_table()
    other.features.unflatten(0, (-1, FRAMES))[SPLIT["test"]] = 7.0
    after = bench(other).carry_out(TASK, epochs=3)
    assert after.facts["best_epoch"] == before.facts["best_epoch"]
    assert after.facts["search"] == before.facts["search"]
    only_one = bench(splits=(({**SPLIT, "test": [11]},),)).carry_out(TASK, epochs=3)
    assert only_one.scores["ordered"] == pytest.approx(before.scores["ordered"][:1])


def test_validation_chooses_among_the_candidates(bench):
    found = bench(lrs="1e-9,0.01", dropouts="0.1,0.5").carry_out(TASK, epochs=12)
    assert [(each["lr"], each["dropout"]) for each in found.facts["search"]] == [
        *((1e-9, 0.1), (1e-9, 0.5), (0.01, 0.1), (0.01, 0.5))
    ]
    assert found.facts["lr"] == 0.01, "with the other one nothing is learned"
    best = max(each["macro_f1"] for each in found.facts["search"])
    assert best == 1


def test_a_candidate_that_breaks_down_is_passed_over(bench, monkeypatch):
    work = bench(lrs="0.5,0.01")
    trained = work._trained

    def explode(task, config, order):
        if config.lr == 0.5:
            raise UserError("training broke down")
        return trained(task, config, order)

    monkeypatch.setattr(work, "_trained", explode)
    found = work.carry_out(TASK, epochs=3)
    assert found.facts["lr"] == 0.01
    assert found.facts["search"][0]["macro_f1"] is None
    monkeypatch.setattr(work, "_candidates", lambda head: [(0.5, 0.2)])
    with pytest.raises(UserError, match="broke down"):
        work.carry_out(TASK, epochs=3)


def test_a_head_that_is_blind_to_order_is_not_trained_twice(bench, monkeypatch):
    work = bench()
    fits = []
    trained = work._trained
    monkeypatch.setattr(work, "_trained", lambda *given: fits.append(given) or trained(*given))
    found = work.carry_out(Task("mean", 0, 0), epochs=2)
    assert len(fits) == 1
    for kind in KINDS:
        assert found.scores[kind] == pytest.approx(found.scores["ordered"], abs=1e-5)
    work.carry_out(TASK, epochs=2)
    assert len(fits) == 3


def test_a_head_that_chooses_its_frames_is_measured_against_frames(bench):
    work = bench(make_table(lengths=[5] * 10 + [3, 5]))
    found = work.carry_out(Task("policy", 0, 0), epochs=3)
    budget = found.facts["frame_budget"]
    truth = np.array([1, 0, 1, 0])
    right = (found.scores["ordered"].argmax(1) == truth).mean()
    assert budget["own"]["policy"] == right, "on the test clips"
    frames = [point["frames"] for point in budget["curve"]]
    assert frames == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5], "three of its four test clips have five"
    assert 1 <= budget["own"]["frames"] <= 4.5
    assert "frame_budget" not in work.carry_out(TASK, epochs=1).facts


def test_the_same_task_again_gives_the_same(bench):
    one, other = (bench().carry_out(TASK, epochs=3).scores for _ in range(2))
    for kind in KINDS:
        assert (one[kind] == other[kind]).all()
    seeds = bench(splits=((SPLIT,), (SPLIT,)))
    assert (seeds.carry_out(Task("lstm", 1, 0), 3).scores["ordered"] != one["ordered"]).any()


def test_mirrored_views_of_training_clips_are_trained_on(bench):
    table = make_table(extra=12)
    work = bench(table, twice=range(12), mirror=True)
    fit, _ = work._fit(TASK, work._settings(TASK, 2, 0.01, 0.2), None)
    assert len(fit.train) == 12
    assert fit.train.labels.tolist() == [0, 1] * 6
    features, _ = fit.train.batch(torch.arange(6, 12), torch.device("cpu"))
    assert (features == frames(table)[12:18]).all()
    assert len(fit.val) == 2


def test_only_real_frames_change_places():
    features = torch.arange(10.0).view(2, 5, 1, 1, 1)
    lengths = torch.tensor([3, 5])
    backwards = reorder(features, lengths, _backwards(torch.arange(2), lengths))
    assert backwards.flatten(1).tolist() == [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5]]
    keys = torch.tensor([[0.5, 0.9, 0.1, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
    assert reorder(features, lengths, keys).flatten(1).tolist() == [
        [2, 0, 1, 3, 4],
        [5, 6, 7, 8, 9],
    ]


def test_the_shuffled_order_of_a_clip_stays_the_same(bench):
    work = bench(make_table(lengths=[5] * 11 + [2]))
    table = work._table("lstm")
    examples = work._examples(table, [11, 3], work._shuffled(TASK))
    generator = torch.Generator()
    one, lengths = examples.batch(torch.tensor([0, 1]), torch.device("cpu"), generator)
    other, _ = examples.batch(torch.tensor([1, 0]), torch.device("cpu"))
    assert lengths.tolist() == [2, 5]
    assert (one == other.flip(0)).all()
    first = {tuple(frame) for frame in one[1].flatten(1).tolist()}
    assert first == {tuple(frame) for frame in frames(table)[3].flatten(1).tolist()}
    assert (one[0, 2:] == frames(table)[11, 1]).all(), "padding stays where it is"


def test_a_table_comes_back(tmp_path):
    table = replace(make_table(), jitter=True)
    save(table, tmp_path / "t.safetensors")
    again = load_table(tmp_path / "t.safetensors")
    assert again.jitter
    assert (again.features == table.features).all()
    assert (again.times == table.times).all()
    rows = torch.tensor([3, 0])
    assert (again.pick(rows, None)[0] == table.pick(rows, None)[0]).all()


def test_one_thread_on_a_cpu_only():
    torch.set_num_threads(2)
    try:
        with one_thread("cpu"):
            assert torch.get_num_threads() == 1
        with one_thread("cuda"):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


class Heard(Progress):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def test_outcomes_are_kept_whole_or_not_at_all(tmp_path):
    heard = Heard()
    kept = Kept(tmp_path / "fits", heard)
    task = Task("odd/../name", 0, 1)
    path = kept.path(task, "0123")
    assert path.parent == tmp_path / "fits"
    assert kept.find(task, "0123") is None
    outcome = Outcome({kind: np.full((2, 3), 0.25, np.float32) for kind in KINDS}, {"lr": 0.1})
    outcome.save(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    again = kept.find(task, "0123")
    assert again.facts == {"lr": 0.1}
    assert (again.scores["reversed"] == 0.25).all()
    assert kept.find(task, "4567") is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert kept.find(task, "0123") is None
    assert "damaged" in heard.warnings[0]
    assert not path.exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyboardInterrupt(), PermissionError(13, "Permission denied")]
)
def test_an_outcome_stays_where_not_its_content_is_to_blame(tmp_path, monkeypatch, error):
    heard = Heard()
    kept = Kept(tmp_path, heard)
    path = kept.path(TASK, "0123")
    Outcome({kind: np.full((2, 3), 0.25, np.float32) for kind in KINDS}, {}).save(path)

    def fail(self, *arguments, **more):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", fail)
        patch.setattr(np, "load", fail)
        wanted = UserError if isinstance(error, OSError) else type(error)
        with pytest.raises(wanted, match="cannot be read" if wanted is UserError else None):
            kept.find(TASK, "0123")
    assert not heard.warnings
    assert kept.find(TASK, "0123") is not None


def test_the_time_of_an_epoch(bench):
    seconds = bench().seconds_per_epoch("lstm")
    assert 0 < seconds < 60
    assert math.isfinite(seconds)
