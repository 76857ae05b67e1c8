"""Accuracy against frames, of a head that chooses them and of its rivals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vidfuse.heads.policy import CachedSource, FixedOrder, Policy, spread_order
from vidfuse.inference.frame_budget import (
    averaged,
    frame_budget,
    random_order,
    uniform_order,
)
from vidfuse.video.sampling import FrameTimes, Sampling

N, K, D, C = 40, 8, 4, 3


@pytest.fixture
def head() -> Policy:
    torch.manual_seed(0)
    head = Policy(D, 1, C, hidden=8, max_looks=5).eval()
    with torch.no_grad():
        head.query.weight.normal_(std=1.0)
        head.stop.weight.normal_(std=2.0)
        head.stop.bias.fill_(1.0)
    return head


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(N, K, D, 1, 1, generator=generator)
    lengths = torch.randint(1, K + 1, (N,), generator=generator)
    features[torch.arange(K) >= lengths[:, None]] = float("nan")
    return features, lengths, torch.randint(0, C, (N,), generator=generator)


def test_uniform_order_is_that_of_sampling() -> None:
    lengths = torch.tensor([8, 7, 3, 1])
    for count in (1, 2, 3, 5, 8):
        order = uniform_order(lengths, count)
        for row, length in zip(order.tolist(), lengths.tolist(), strict=True):
            frame_times = FrameTimes(np.arange(length) / 10, length / 10)
            picked = Sampling.parse("uniform").pick(frame_times, count)
            assert row[: len(picked)] == picked.tolist()


def test_random_order_is_a_permutation() -> None:
    lengths = torch.tensor([8, 5, 1])
    order = random_order(lengths, 8, torch.Generator().manual_seed(0))
    for row, length in zip(order.tolist(), lengths.tolist(), strict=True):
        assert sorted(row[:length]) == list(range(length))


def accuracy(head: Policy, clips: tuple[torch.Tensor, ...], order: torch.Tensor) -> float:
    features, lengths, labels = clips
    episode = head.observe(CachedSource(features, lengths), FixedOrder(order))
    return (episode.answers.argmax(1) == labels).double().mean().item()


def test_the_curves(head: Policy, clips: tuple[torch.Tensor, ...]) -> None:
    features, lengths, labels = clips
    budget = frame_budget(head, features, lengths, labels, draws=3)
    most = lengths.clamp(max=5).double().mean().item()
    for name, (frames, values) in budget.curves.items():
        assert frames[0] == 1, name
        assert frames[-1] == pytest.approx(most), name
        assert (np.diff(frames) > 0).all(), name
        assert ((values >= 0) & (values <= 1)).all(), name
    # What the head decides by itself is a point of its curve.
    episode = head.observe(CachedSource(features, lengths))
    assert budget.own[0] == episode.counts.double().mean().item()
    assert 1 < budget.own[0] < most
    frames, values = budget.curves["uniform"]
    for count in range(1, 6):
        k = lengths.clamp(max=count).double().mean().item()
        expected = accuracy(head, clips, uniform_order(lengths, count))
        assert values[np.isclose(frames, k)].tolist() == [expected]
    frames, values = budget.curves["early_exit"]
    assert values[-1] == accuracy(head, clips, spread_order(lengths, 5))
    drawn = torch.Generator().manual_seed(0)
    orders = [random_order(lengths, 5, drawn) for _ in range(3)]
    expected = float(np.mean([accuracy(head, clips, order) for order in orders]))
    assert budget.curves["random"][1][-1] == pytest.approx(expected)


def test_early_exit_by_hand(head: Policy, clips: tuple[torch.Tensor, ...]) -> None:
    features, lengths, labels = clips
    budget = frame_budget(head, features, lengths, labels, draws=1)
    episode = head.observe(CachedSource(features, lengths), FixedOrder(spread_order(lengths, 5)))
    frames, values = budget.curves["early_exit"]
    for threshold in (0.4, 0.5, 0.6):
        counts, right = [], []
        for clip in range(N):
            for look in range(int(episode.counts[clip])):
                scores = episode.logits[clip, look].softmax(0)
                if scores.max() >= threshold:
                    break
            counts.append(look + 1)
            right.append(int(scores.argmax()) == labels[clip])
        k = float(np.mean(counts))
        # Thresholds are tried at percentiles, so the very same one is hardly among them.
        near = np.interp([k - 0.1, k, k + 0.1], frames, values)
        assert near.min() - 0.05 <= np.mean(right) <= near.max() + 0.05


def test_as_json(head: Policy, clips: tuple[torch.Tensor, ...]) -> None:
    budget = frame_budget(head, *clips, draws=2)
    result = json.loads(json.dumps(budget.to_dict()))
    names = {"frames", "policy", "uniform", "random", "early_exit"}
    assert set(result["own"]) == names
    assert result["own"]["frames"] == budget.own[0]
    assert result["own"]["policy"] == budget.own[1]
    assert [point["frames"] for point in result["curve"]][:3] == [1.0, 1.5, 2.0]
    assert all(set(point) == names for point in result["curve"])


def test_the_mean_of_measurements(head: Policy, clips: tuple[torch.Tensor, ...]) -> None:
    budget = frame_budget(head, *clips, draws=2).to_dict()
    assert averaged([budget], [7])["own"] == pytest.approx(budget["own"])
    for one, other in zip(averaged([budget], [7])["curve"], budget["curve"], strict=True):
        assert one == pytest.approx(other)
    names = ("policy", "uniform", "random", "early_exit")
    low, high = (
        {
            "own": {"frames": frames, **dict.fromkeys(names, level)},
            "curve": [
                {"frames": frames, **dict.fromkeys(names, level + frames / 100)} for frames in grid
            ],
        }
        for frames, level, grid in ((1.0, 0.0, (1.0, 1.5)), (2.0, 0.4, (1.0, 1.5, 2.0)))
    )
    mean = averaged([low, high], [30, 10])
    assert mean["own"] == pytest.approx({"frames": 1.25, **dict.fromkeys(names, 0.1)})
    assert [point["frames"] for point in mean["curve"]] == [1.0, 1.5, 2.0]
    for point, expected in zip(mean["curve"], (0.11, 0.115, 0.1 + 0.01125 + 0.005), strict=True):
        assert point["random"] == pytest.approx(expected)
