"""One task: nothing of the test fold is seen, and the orders of frames are what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from heard import Heard

from vidfuse.comparison import fits
from vidfuse.comparison.config import CompareConfig
from vidfuse.comparison.fit_store import KINDS, FitResult, FitStore
from vidfuse.comparison.fits import FitRunner, OutOfTimeError, sorted_columns
from vidfuse.comparison.job_spec import JobSpec
from vidfuse.comparison.plan import Candidate, Task
from vidfuse.comparison.tables import features_of, load_table, save_table
from vidfuse.errors import UserError
from vidfuse.features.table import FeatureTable
from vidfuse.machine import one_thread
from vidfuse.training.examples import predict
from vidfuse.training.fit import Fit


@pytest.fixture
def begun(monkeypatch):
    """The fits whose epochs are asked for, in their order."""
    fits = []
    epochs = Fit.__iter__

    def noted(fit):
        fits.append(fit)
        return epochs(fit)

    monkeypatch.setattr(Fit, "__iter__", noted)
    return fits


def task_of(head, seed=0):
    return Task(Candidate(head, "any", 1), seed, 0)


TASK = task_of("lstm")
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
        features=features.half().flatten(0, 1).numpy(),
        firsts=np.arange(clips + extra) * FRAMES,
        lengths=count.numpy(),
        chosen=torch.arange(FRAMES).expand(clips + extra, -1).minimum(count[:, None] - 1).numpy(),
        chosen_lengths=count.numpy().copy(),
        times=np.tile(np.arange(FRAMES, dtype=float), (clips + extra, 1)),
        starts=np.zeros(clips + extra),
        ends=np.full(clips + extra, float(FRAMES)),
        jitter=False,
    )


def frames(table):
    """Features [N, K, D, g, g]."""
    return torch.from_numpy(table.features).unflatten(0, (-1, FRAMES)).float()


def save(table, path):
    """What `Tables.fill` leaves of a table."""
    features_of(path).write_bytes(table.features.tobytes())
    save_table(table, path)


SPLIT = {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [11, 8, 9, 10]}


@pytest.fixture
def bench(tmp_path):
    def make(table=None, splits=((SPLIT,),), mirrored=(), clips=12, orders=True, **settings):
        path = tmp_path / "table.safetensors"
        save(table or make_table(), path)
        settings = {"frames": FRAMES, "lrs": "0.01", "dropouts": "0.2", "device": "cpu", **settings}
        config = CompareConfig.from_mapping(settings)
        return FitRunner(
            JobSpec(
                settings=config.training("mean").to_dict(),
                hyperparameters=config.hyperparameters(),
                orders=orders,
                tables={"any 1": str(path)},
                labels=[0, 1] * (clips // 2),
                mirrored=list(mirrored),
                classes=2,
                splits=[list(each) for each in splits],
            )
        )

    return make


def test_it_learns_the_order_and_only_in_order(bench):
    split = {"train": [*range(16)], "val": [*range(16, 20)], "test": [*range(59, 19, -1)]}
    work = bench(make_table(60), splits=((split,),), clips=60)
    found = work.run(TASK, epochs=40)
    truth = np.array([1, 0] * 20)
    right = {kind: (found.scores[kind].argmax(1) == truth).mean() for kind in KINDS}
    assert right["ordered"] > 0.95
    assert right["reversed"] < 0.05, "backwards, each class is the other"
    assert 0.2 < right["shuffled"] < 0.8
    assert 0.2 < right["tested_shuffled"] < 0.8
    for scores in found.scores.values():
        assert scores.shape == (40, 2)
        assert scores.sum(1) == pytest.approx(np.ones(40), abs=1e-5)
    assert found.metadata["training_seconds"] > 0
    assert 1 <= found.metadata["best_epoch"] <= 40


def test_what_is_tested_plays_no_part_in_training(bench):
    before = bench().run(TASK, epochs=3)
    other = make_table()
    other.features.reshape(-1, FRAMES, 8, 1, 1)[SPLIT["test"]] = 7.0
    after = bench(other).run(TASK, epochs=3)
    assert after.metadata["best_epoch"] == before.metadata["best_epoch"]
    assert after.metadata["search"] == before.metadata["search"]
    only_one = bench(splits=(({**SPLIT, "test": [11]},),)).run(TASK, epochs=3)
    assert only_one.scores["ordered"] == pytest.approx(before.scores["ordered"][:1], abs=1e-8)


def test_validation_chooses_among_the_candidates(bench):
    found = bench(lrs="1e-9,0.01", dropouts="0.1,0.5").run(TASK, epochs=12)
    assert [(each["lr"], each["dropout"]) for each in found.metadata["search"]] == [
        *((1e-9, 0.1), (1e-9, 0.5), (0.01, 0.1), (0.01, 0.5))
    ]
    assert found.metadata["lr"] == 0.01, "with the other one nothing is learned"
    best = max(found.metadata["search"], key=lambda each: each["score"])
    assert best["lr"] == 0.01


def test_a_candidate_that_breaks_down_is_passed_over(bench, monkeypatch):
    epochs = Fit.__iter__

    def explode(fit):
        if fit.config.lr == 0.5:
            raise UserError("training broke down")
        return epochs(fit)

    monkeypatch.setattr(Fit, "__iter__", explode)
    found = bench(lrs="0.5,0.01").run(TASK, epochs=3)
    assert found.metadata["lr"] == 0.01
    assert found.metadata["search"][0]["score"] is None
    with pytest.raises(UserError, match="broke down"):
        bench(lrs="0.5").run(TASK, epochs=3)


def test_a_head_that_is_blind_to_order_is_not_trained_twice(bench, begun):
    work = bench()
    found = work.run(task_of("mean"), epochs=2)
    assert len(begun) == 2, "and once more with all clips"
    for kind in KINDS:
        assert found.scores[kind] == pytest.approx(found.scores["ordered"], abs=1e-5)
    work.run(TASK, epochs=2)
    assert len(begun) == 2 + 4


def test_a_head_that_chooses_its_frames_is_measured_against_frames(bench):
    work = bench(make_table(lengths=[5] * 10 + [3, 5]))
    found = work.run(task_of("policy"), epochs=3)
    budget = found.metadata["frame_budget"]
    truth = np.array([1, 0, 1, 0])
    right = (found.scores["ordered"].argmax(1) == truth).mean()
    assert budget["own"]["policy"] == right, "on the test clips"
    frames = [point["frames"] for point in budget["curve"]]
    assert frames == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5], "three of its four test clips have five"
    assert 1 <= budget["own"]["frames"] <= 4.5
    assert "frame_budget" not in work.run(TASK, epochs=1).metadata


def test_the_same_task_again_gives_the_same(bench):
    one, other = (bench().run(TASK, epochs=3).scores for _ in range(2))
    for kind in KINDS:
        assert (one[kind] == other[kind]).all()
    seeds = bench(splits=((SPLIT,), (SPLIT,)))
    assert (seeds.run(task_of("lstm", 1), 3).scores["ordered"] != one["ordered"]).any()


def test_mirrored_views_of_training_clips_are_trained_on(bench, begun):
    table = make_table(extra=12)
    bench(table, mirrored=range(12), mirror=True).run(TASK, epochs=2)
    fit = begun[0]
    assert len(fit.train) == 12
    assert fit.train.labels.tolist() == [0, 1] * 6
    features, _ = fit.train.batch(torch.arange(6, 12), torch.device("cpu"))
    assert (features == frames(table)[12:18]).all()
    assert len(fit.val) == 2


def test_random_views_of_training_clips_are_drawn_from(bench, begun):
    table = make_table(extra=2 + 24)
    work = bench(table, mirrored=[0, 7], mirror=True, views=2, refit=False)
    work.run(TASK, epochs=2)
    expected = [[row, 14 + 2 * row, 15 + 2 * row] for row in range(6)] + [[12, 14, 15]]
    for fit, shuffled in zip(begun, (False, True), strict=True):
        assert len(fit.train) == 7
        assert fit.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
        assert (fit.train.frames[fit.train.views][..., 0] // FRAMES).tolist() == expected
        assert fit.val.views is None
        if shuffled:
            orders = fit.train.order[fit.train.views[:6]]
            assert (orders == orders[:, :1]).all(), "that of the clip"
            assert len({tuple(row) for row in orders[:, 0].tolist()}) > 1


def test_a_refit_learns_from_validation_clips_for_the_epochs_that_they_chose(bench, begun):
    table = make_table(extra=12)
    found = bench(table, mirrored=range(12), mirror=True, orders=False).run(TASK, epochs=9)
    chosen, again = begun
    assert chosen.train.labels.tolist() == [0, 1, 0, 1, 0, 1] * 2
    assert again.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1] * 2, "mirrored ones, too"
    assert len(again.val) == 0
    assert again.epoch == chosen.best_epoch == found.metadata["best_epoch"]
    assert again.weights is chosen.best_weights
    logits, _ = predict(again.head, again.train, device="cpu", batch_size=64)
    assert not torch.equal(
        logits, predict(chosen.head, again.train, device="cpu", batch_size=64)[0]
    )
    once = bench(table, mirrored=range(12), mirror=True, orders=False, refit=False)
    once.run(TASK, epochs=9)
    assert len(begun) == 3
    state = chosen.head.state_dict()
    assert all(
        torch.equal(value, state[name]) for name, value in begun[2].head.state_dict().items()
    )


def test_time_runs_out_in_a_refit_and_is_counted_there(bench, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("vidfuse.comparison.fits.time.time", lambda: clock[0])
    monkeypatch.setattr("vidfuse.comparison.fits.time.perf_counter", lambda: clock[0])
    epochs = Fit.__iter__

    def timed(fit):
        for epoch in epochs(fit):
            clock[0] += 1 if len(fit.val) else 100
            yield epoch

    monkeypatch.setattr(Fit, "__iter__", timed)
    found = bench(orders=False).run(TASK, epochs=4)
    assert found.metadata["training_seconds"] == 4 + 100 * found.metadata["best_epoch"]
    clock[0] = 0.0
    with pytest.raises(OutOfTimeError):
        bench(orders=False).run(TASK, epochs=4, until=50.0)
    assert clock[0] == 104


def test_only_real_frames_change_places():
    lengths = torch.tensor([3, 5])
    keys = torch.tensor([[0.5, 0.9, 0.1, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
    assert sorted_columns(lengths, keys, 5).tolist() == [[2, 0, 1, 3, 4], [0, 1, 2, 3, 4]]


@pytest.fixture
def tested(bench, monkeypatch):
    """Examples that a fit is tested on: clips 11, which has two frames, and 8, 9, 10; by order."""
    kinds = iter(("ordered", "shuffled", "reversed", "shuffled again"))
    seen = {}

    def noted(head, examples, **more):
        seen[next(kinds)] = examples
        return predict(head, examples, **more)

    monkeypatch.setattr(fits, "predict", noted)
    bench(make_table(lengths=[5] * 11 + [2])).run(TASK, epochs=1)
    return seen


def test_backwards_is_the_last_frame_first(tested):
    clips = torch.arange(4)
    forth, _ = tested["ordered"].batch(clips, torch.device("cpu"))
    back, _ = tested["reversed"].batch(clips, torch.device("cpu"))
    assert (back[1:] == forth[1:].flip(1)).all()
    assert (back[0] == forth[0, [1, 0, 2, 3, 4]]).all(), "padding stays where it is"


def test_the_shuffled_order_of_a_clip_stays_the_same(tested):
    table = make_table(lengths=[5] * 11 + [2])
    examples = tested["shuffled"]
    generator = torch.Generator()
    one, lengths = examples.batch(torch.tensor([0, 1]), torch.device("cpu"), generator)
    other, _ = examples.batch(torch.tensor([1, 0]), torch.device("cpu"))
    assert lengths.tolist() == [2, 5]
    assert (one == other.flip(0)).all()
    first = {tuple(frame) for frame in one[1].flatten(1).tolist()}
    assert first == {tuple(frame) for frame in frames(table)[8].flatten(1).tolist()}
    assert (one[0, 2:] == frames(table)[11, 1]).all(), "padding stays where it is"


def test_a_table_comes_back(tmp_path):
    table = replace(make_table(), jitter=True)
    save(table, tmp_path / "t.safetensors")
    again = load_table(tmp_path / "t.safetensors")
    assert again.jitter
    assert (again.features == table.features).all()
    assert (again.times == table.times).all()
    assert (again.chosen == table.chosen).all()


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


def test_results_are_kept_whole_or_not_at_all(tmp_path):
    heard = Heard()
    store = FitStore(tmp_path / "fits", heard)
    task = Task(Candidate("odd/../name", "any", 1), 0, 1)
    path = store.path(task, "0123")
    assert path.parent == tmp_path / "fits"
    assert store.find(task, "0123") is None
    result = FitResult({kind: np.full((2, 3), 0.25, np.float32) for kind in KINDS}, {"lr": 0.1})
    result.save(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    with np.load(path) as file:
        assert set(file.files) == {*KINDS, "facts"}, "the names in files of earlier releases"
    again = store.find(task, "0123")
    assert again is not None
    assert again.metadata == {"lr": 0.1}
    assert (again.scores["reversed"] == 0.25).all()
    assert store.find(task, "4567") is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert store.find(task, "0123") is None
    assert "damaged" in heard.warnings[0]
    assert not path.exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyboardInterrupt(), PermissionError(13, "Permission denied")]
)
def test_an_outcome_stays_where_not_its_content_is_to_blame(tmp_path, monkeypatch, error):
    heard = Heard()
    store = FitStore(tmp_path, heard)
    path = store.path(TASK, "0123")
    FitResult({kind: np.full((2, 3), 0.25, np.float32) for kind in KINDS}, {}).save(path)

    def fail(_self, *_arguments, **_more):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", fail)
        patch.setattr(np, "load", fail)
        wanted = UserError if isinstance(error, OSError) else type(error)
        with pytest.raises(wanted, match="cannot be read" if wanted is UserError else None):
            store.find(TASK, "0123")
    assert not heard.warnings
    assert store.find(TASK, "0123") is not None


def test_the_time_of_an_epoch(bench):
    seconds = bench().seconds_per_epoch(TASK.candidate)
    assert 0 < seconds < 60
    assert math.isfinite(seconds)
