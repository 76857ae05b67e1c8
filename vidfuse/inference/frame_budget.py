"""Accuracy of a head that selects its frames, beside rivals that observe as many.

All read the same frames with the same weights, and differ in which they observe and when they stop:

* ``policy``: the head's own choices; where it stops follows from how probable it must find that.
* ``uniform``: the frames at the centres of k equal parts of the clip, of those that are cached.
* ``random``: k of the cached frames, drawn anew several times.
* ``early exit``: the frames that cover the clip soonest (middle first), until the most probable
  class is probable enough.

A number of frames that is no whole number, k + s, means k + 1 frames for a share s of the clips, so
the accuracy of ``uniform`` and ``random`` there lies on the line between the neighbours. Likewise
for ``early exit`` between two thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.heads.base import mask
from vidfuse.heads.policy import (
    CachedSource,
    Episode,
    FixedOrder,
    FrameSelectingHead,
    NeverStop,
    spread_order,
)

DRAWS = 20
"""So many random choices are averaged."""
LEVELS = 101
"""So many thresholds are tried."""
STEP = 0.5
"""Frames from one point of a curve to the next, when it is written down."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean number of frames [n], growing, and the accuracy with it [n]."""


@dataclass(frozen=True)
class FrameBudget:
    """Accuracy against frames.

    Attributes:
        own: Mean frames and accuracy as the head itself stops.
        curves: ``policy`` and its rivals, by name.
    """

    own: tuple[float, float]
    curves: Mapping[str, Curve]

    def at(self, frames: float) -> dict[str, float]:
        """The accuracy of each with a mean number of frames."""
        return {name: float(np.interp(frames, *curve)) for name, curve in self.curves.items()}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: ``own`` and ``curve``, points with ``frames`` and everyone's accuracy."""
        grid = _grid(float(self.curves["policy"][0][-1]))
        own, accuracy = self.own
        return {
            "own": {"frames": own, **self.at(own), "policy": accuracy},
            "curve": [{"frames": frames, **self.at(frames)} for frames in grid],
        }


def averaged(budgets: Sequence[Mapping[str, Any]], clips: Sequence[int]) -> dict[str, Any]:
    """The mean of several measurements, as of folds and seeds.

    Args:
        budgets: Each as ``FrameBudget.to_dict`` gives it. Where one has no more frames, its
            accuracy stays what it was with the most.
        clips: Number of clips that each was measured on, which is its weight.

    Returns:
        The mean, in the same form.
    """

    def mean(points: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {
            name: float(np.average([each[name] for each in points], weights=clips))
            for name in points[0]
        }

    most = max(budget["curve"][-1]["frames"] for budget in budgets)
    return {
        "own": mean([budget["own"] for budget in budgets]),
        "curve": [
            mean([_point_at(budget["curve"], frames) for budget in budgets]) | {"frames": frames}
            for frames in _grid(most)
        ],
    }


def _grid(most: float) -> list[float]:
    """The numbers of frames of a curve that is written down."""
    return [*np.arange(1, most, STEP).tolist(), most]


def _point_at(curve: Sequence[Mapping[str, float]], frames: float) -> dict[str, float]:
    """The accuracy of each with a number of frames, of a curve that is written down."""
    known = [point["frames"] for point in curve]
    names = [name for name in curve[0] if name != "frames"]
    return {
        name: float(np.interp(frames, known, [point[name] for point in curve])) for name in names
    }


@torch.inference_mode()
def frame_budget(
    head: FrameSelectingHead,
    features: Tensor,
    lengths: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> FrameBudget:
    """Measure a trained head.

    Args:
        head: The head, on the device of the features.
        features: Cached features of all candidates [N, K, D, g, g].
        lengths: Candidates of each clip [N].
        labels: True classes [N].
        seed: Of the random choices.
        draws: Random choices that are averaged.
    """
    head.eval()
    source = CachedSource(features, lengths)
    greedy = head.observe(source)
    most = head.observe(source, NeverStop())
    glimpses = most.logits.shape[1]
    spread = head.observe(source, FixedOrder(spread_order(lengths, glimpses)))
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        _by_glimpse(
            head.observe(source, FixedOrder(random_order(lengths, glimpses, generator))), labels
        )
        for _ in range(draws)
    ]
    evenly = [
        head.observe(source, FixedOrder(uniform_order(lengths, count)))
        for count in range(1, glimpses + 1)
    ]
    return FrameBudget(
        own=_point(greedy, greedy.counts, labels),
        curves={
            "policy": _by_threshold(most, most.stops, labels),
            "uniform": _curve([_point(each, each.counts, labels) for each in evenly]),
            "random": (drawn[0][0], np.mean([accuracy for _, accuracy in drawn], axis=0)),
            "early_exit": _by_threshold(spread, spread.logits.softmax(2).amax(2), labels),
        },
    )


def uniform_order(lengths: Tensor, count: int) -> Tensor:
    """The candidates at the centres of so many equal parts of each clip, int64 [B, count].

    Of a clip with no more candidates than that all are taken; the rest of its row means nothing.
    """
    parts = torch.arange(count, device=lengths.device)
    step = lengths[:, None].clamp(min=count) / count
    return ((parts + 0.5) * step).long()


def random_order(lengths: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Candidates of each clip in random order, int64 [B, M]; those behind its end come last."""
    longest = int(lengths.max())
    chance = torch.rand(len(lengths), longest, generator=generator).to(lengths.device)
    return chance.masked_fill(~mask(lengths, longest), 2.0).argsort(1)[:, :count]


def _point(episode: Episode, counts: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean number of frames and accuracy, if each clip is classified after so many glimpses [B]."""
    rows = torch.arange(len(counts), device=counts.device)
    right = episode.logits[rows, counts - 1].argmax(1) == labels
    return counts.double().mean().item(), right.double().mean().item()


def _by_glimpse(episode: Episode, labels: Tensor) -> Curve:
    """The curve of answering after the first glimpse, the second, and so on."""
    glimpses = range(1, episode.logits.shape[1] + 1)
    return _curve([_point(episode, episode.counts.clamp(max=count), labels) for count in glimpses])


def _by_threshold(episode: Episode, ratings: Tensor, labels: Tensor) -> Curve:
    """The curve of answering as soon as the rating after a glimpse [B, M] reaches a threshold."""
    levels = ratings.double().flatten().quantile(torch.linspace(0, 1, LEVELS, dtype=torch.float64))
    points = []
    for level in (-torch.inf, *sorted(set(levels.tolist())), torch.inf):
        reached = ratings >= level
        reached[:, -1] = True
        first = reached.to(torch.int8).argmax(1) + 1
        points.append(_point(episode, torch.minimum(first, episode.counts), labels))
    return _curve(points)


def _curve(points: list[tuple[float, float]]) -> Curve:
    """Points in the order of their frames, the last of those that have the same."""
    frames, accuracy = zip(*dict(points).items(), strict=True)
    return np.array(frames), np.array(accuracy)
