"""Segments of a video, from the scores of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.timeline import Segment

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SegmentRule:
    """The rule by which segments are made of scores.

    Attributes:
        smooth: Samples over which scores are averaged; 0 leaves them.
        cost: What a segment costs, of the sum of probability over samples that it gains.
        shortest: Samples that a segment has at least, unless the whole video has fewer.
        threshold: Probability that a segment reaches somewhere; 0 names every sample.
        low: Probability that its samples have: it begins and ends there (hysteresis).
        background: Classes that are no segments.
    """

    smooth: int = 0
    cost: float = 0.0
    shortest: int = 1
    threshold: float = 0.0
    low: float = 0.0
    background: tuple[str, ...] = ()


def find_segments(
    scores: Scores, classes: Sequence[str], times: NDArray[np.float64], rule: SegmentRule
) -> list[Segment]:
    """Segments of a video.

    Of all labellings whose segments are long enough, it is the one with the largest sum of scores
    less the cost of its segments: without a cost the one that is right for most samples, if scores
    are probabilities. What is no segment costs nothing and may be of any length.

    Args:
        scores: Probability of each class at each sample ``[N, C]``.
        classes: Their names.
        times: Where samples begin and the last one ends, in seconds ``[N + 1]``.
        rule: How segments are made.
    """
    if not len(scores):
        return []
    smoothed = smooth(scores, rule.smooth)
    nothing = len(classes)
    low = rule.low if rule.threshold else None
    background = [n for n, name in enumerate(classes) if name in rule.background]
    labels = best_labels(smoothed, rule.shortest, low, rule.cost, background)
    segments = []
    edges = np.flatnonzero(np.diff(labels, prepend=-1, append=-1))
    for first, stop in pairwise(edges.tolist()):
        label = int(labels[first])
        if label == nothing or classes[label] in rule.background:
            continue
        inside = smoothed[first:stop, label]
        if inside.max() >= rule.threshold:
            score = round(float(inside.mean()), 6)
            start, end = float(times[first]), float(times[stop])
            segments.append(Segment(start, end, classes[label], score))
    return segments


def smooth(scores: Scores, samples: int) -> Scores:
    """The mean of each sample's scores ``[N, C]`` and those around it, so many in all.

    At the ends of a video it is the mean of those that there are.
    """
    if samples < 2:
        return scores
    count = len(scores)
    sums = np.concatenate([np.zeros((1, scores.shape[1])), scores.cumsum(0)])
    first = (np.arange(count) - (samples - 1) // 2).clip(0)
    stop = (np.arange(count) + samples // 2 + 1).clip(max=count)
    means: Scores = (sums[stop] - sums[first]) / (stop - first)[:, None]
    return means


def best_labels(
    scores: Scores,
    shortest: int,
    low: float | None,
    cost: float = 0.0,
    background: Sequence[int] = (),
) -> Labels:
    """The labelling with the largest sum of scores, in which every segment is long enough.

    Each segment takes the cost from the sum. By dynamic programming over the ends of segments.

    Args:
        scores: ``[N, C]``, N at least 1.
        shortest: Samples of a segment, at least.
        low: The score of a sample without a class; None labels them all.
        cost: Of a segment.
        background: Class numbers that are no segments: free, and of any length.

    Returns:
        ``[N]`` class numbers; C is none.
    """
    count, classes = scores.shape
    shortest = min(max(shortest, 1), count)
    free = list(background)
    if low is not None:
        scores = np.hstack([scores, np.full((count, 1), low)])
        free.append(classes)
    if shortest == 1 and not cost:
        return np.asarray(scores.argmax(1), np.int64)
    lengths, costs = np.full(scores.shape[1], shortest), np.full(scores.shape[1], cost)
    lengths[free], costs[free] = 1, 0.0
    sums = np.concatenate([np.zeros((1, scores.shape[1])), scores.cumsum(0)])
    columns = np.arange(scores.shape[1])
    # For labellings of the first n samples that end with a segment of class c: the largest sum,
    # and where that segment begins.
    best = np.full(scores.shape[1], -np.inf)
    begins = np.zeros((count + 1, scores.shape[1]), np.int64)
    overall = np.full(count + 1, -np.inf)  # the largest of any class
    overall[0] = 0
    last = np.zeros(count + 1, np.int64)  # and that class
    for n in range(1, count + 1):
        start = n - lengths
        gained = sums[n] - sums[start, columns] - costs
        anew = np.where(start >= 0, overall[start] + gained, -np.inf)
        longer = best + scores[n - 1]
        goes_on = longer >= anew
        begins[n] = np.where(goes_on, begins[n - 1], start)
        best = np.where(goes_on, longer, anew)
        last[n] = best.argmax()
        overall[n] = best[last[n]]
    labels = np.empty(count, np.int64)
    n = count
    while n:
        begin = int(begins[n, last[n]])
        labels[begin:n] = last[n]
        n = begin
    return labels
