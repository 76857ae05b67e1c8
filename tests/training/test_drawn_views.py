"""Training on random views: other ones in each epoch, the plain clips in validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vidfuse
from vidfuse.data.clip import Clip
from vidfuse.features.table import FeatureTable
from vidfuse.progress import Reporter
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import TrainingData
from vidfuse.training.examples import Examples
from vidfuse.training.steps import new_fit
from vidfuse.video import view as view_module

QUICK: dict[str, Any] = {
    **{"backbone": "resnet18", "weights": "random", "layer": "layer1", "size": 32, "frames": 4},
    **{"workers": 1, "epochs": 4, "patience": 0, "head_options": {"hidden": 8}},
}
CPU = torch.device("cpu")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """The clips and the frames of every batch of training, as indices into the features."""
    batches = []
    original = Examples.batch

    def noted(examples: Examples, indices: Tensor, device: Any, generator: Any = None) -> Any:
        features, lengths = original(examples, indices, device, generator)
        if generator is not None:
            batches.append((indices.clone(), features.clone()))
        return features, lengths

    monkeypatch.setattr(Examples, "batch", noted)
    return batches


def made_up(views: int, clips: int = 6) -> tuple[FeatureTable, list[Clip]]:
    """Two frames of each row, which hold its number: clips, mirrored ones, views by number."""
    names = [Clip(Path(f"{n}.mkv"), "ab"[n % 2]) for n in range(clips)]
    rows = clips * (views + 2)
    frames = np.arange(rows * 2)
    table = FeatureTable(
        features=(frames // 2).astype(np.float16)[:, None, None, None],
        firsts=2 * np.arange(rows),
        lengths=np.full(rows, 2),
        chosen=np.tile([0, 1], (rows, 1)),
        chosen_lengths=np.full(rows, 2),
        times=np.tile([0.0, 1.0], (rows, 1)),
        starts=np.zeros(rows),
        ends=np.full(rows, 2.0),
        jitter=False,
        rows={clip: n for n, clip in enumerate(names)},
        view_rows={
            clip: [n + clips * (number + 2) for number in range(views)]
            for n, clip in enumerate(names)
        },
    )
    return table, names


def fit_of(table: FeatureTable, clips: list[Clip], **settings: Any) -> Any:
    config = TrainConfig(**{"head": "mean", "device": "cpu", "epochs": 40, **settings})
    return new_fit(config, table, {"train": clips[:4], "val": clips[4:]}, ["a", "b"])


def shown(batches: list[tuple[Tensor, Tensor]], clips: int) -> list[dict[int, int]]:
    """For each epoch, the row that each clip showed."""
    pairs = [
        (int(clip), int(row))
        for indices, features in batches
        for clip, row in zip(indices, features[:, 0].flatten(), strict=True)
    ]
    return [dict(pairs[start : start + clips]) for start in range(0, len(pairs), clips)]


def test_each_epoch_draws_one_of_its_views_for_each_clip(drawn: Any) -> None:
    table, clips = made_up(views=3)
    for _ in fit_of(table, clips, views=3):
        pass
    epochs = shown(drawn, 4)
    assert len(epochs) == 40
    for clip in range(4):
        rows = [epoch[clip] for epoch in epochs]
        assert set(rows) == {clip, clip + 12, clip + 18, clip + 24}, "no mirrored one, no other's"
        assert all(4 <= rows.count(row) <= 17 for row in set(rows)), "each in a quarter of them"
    assert len({tuple(sorted(epoch.items())) for epoch in epochs}) > 30


def test_mirrored_examples_draw_from_the_same_views(drawn: Any) -> None:
    table, clips = made_up(views=1)
    table = replace(table, mirrored_rows={clip: n + 6 for n, clip in enumerate(clips)})
    fit = fit_of(table, clips, views=1, mirror=True)
    assert fit.train.labels.tolist() == [0, 1, 0, 1] * 2
    for _ in fit:
        pass
    epochs = shown(drawn, 8)
    for clip in range(4):
        assert {epoch[clip] for epoch in epochs} == {clip, clip + 12}
        assert {epoch[clip + 4] for epoch in epochs} == {clip + 6, clip + 12}


def test_without_views_nothing_else_is_drawn(drawn: Any) -> None:
    table, clips = made_up(views=2)
    one, other = fit_of(table, clips), fit_of(replace(table, view_rows={}), clips)
    assert one.train.views is None
    for fit in (one, other):
        for _ in fit:
            pass
    assert {tuple(epoch.items()) for epoch in shown(drawn, 4)} <= {
        tuple((int(c), int(c)) for c in order)
        for order in torch.cartesian_prod(*[torch.arange(4)] * 4)
    }
    state = other.head.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.head.state_dict().items())


def test_validation_and_prediction_read_the_plain_clip() -> None:
    table, clips = made_up(views=3)
    fit = fit_of(table, clips, views=3)
    assert fit.val.views is None
    features, _ = fit.val.batch(torch.arange(2), CPU)
    assert features[:, 0].flatten().tolist() == [4, 5]
    features, _ = fit.train.batch(torch.arange(4), CPU)
    assert features[:, 0].flatten().tolist() == [0, 1, 2, 3]


def test_a_view_that_could_not_be_read_is_the_plain_clip(drawn: Any) -> None:
    table, clips = made_up(views=2)
    table.view_rows[clips[1]].pop()
    del table.view_rows[clips[2]]
    for _ in fit_of(table, clips, views=2):
        pass
    epochs = shown(drawn, 4)
    assert {epoch[1] for epoch in epochs} == {1, 13}
    assert {epoch[2] for epoch in epochs} == {2}


def weights(run: str) -> list[Tensor]:
    return list(vidfuse.load_model(run).model.head.state_dict().values())


def test_training_with_views_repeats_and_learns_other_weights(
    dataset: Path, shared_cache: str
) -> None:
    found = [
        vidfuse.train(dataset, cache=shared_cache, out=name, views=views, **QUICK)
        for name, views in (("one", 2), ("again", 2), ("plain", 0))
    ]
    counts = [each.computed + each.reused for each in found]
    assert counts == [3 * found[0].clips] * 2 + [found[0].clips], "a refit learns from all clips"
    chosen = vidfuse.train(dataset, cache=shared_cache, out="chosen", views=2, refit=False, **QUICK)
    assert chosen.reused == chosen.clips + 2 * chosen.split["train"], "no views of validation"
    one, again, plain = (weights(each.run) for each in found)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, plain, strict=True))


def test_folds_train_on_views_and_test_on_plain_clips(dataset: Path, shared_cache: str) -> None:
    report = vidfuse.train(
        dataset, cache=shared_cache, folds=2, split="random", out="run", views=2, **QUICK
    )
    assert (report.clips, report.computed + report.reused) == (24, 72)
    assert np.sum(report.confusion_matrix) == 24


def test_what_was_learned_from_names_the_views(
    dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(views: int) -> str:
        data = TrainingData(
            dataset, TrainConfig(cache=shared_cache, views=views, **QUICK), Reporter()
        )
        data.hashes = dict.fromkeys(data.data.clips, "abc")
        return data.fingerprint({"train": data.data.clips})

    digests = {digest(views) for views in (0, 1, 2)}
    assert len(digests) == 3
    monkeypatch.setitem(view_module.RANGES, "scale", (0.1, 1.0))
    assert digest(0) in digests
    assert digest(2) not in digests
