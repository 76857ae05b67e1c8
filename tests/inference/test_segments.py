"""Segments of scores: the best labelling of those whose segments are long enough."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np
import pytest

from vidfuse.inference.segments import SegmentRule, best_labels, find_segments, smooth


def lengths_of(labels):
    return [(label, len(list(run))) for label, run in groupby(labels)]


def best_by_trying(scores, shortest, low):
    """The largest sum of scores of all labellings that are allowed."""
    count, classes = scores.shape
    if low is not None:
        scores = np.hstack([scores, np.full((count, 1), low)])
    sums = [
        scores[range(count), labels].sum()
        for labels in product(range(scores.shape[1]), repeat=count)
        if all(n >= shortest or label == classes for label, n in lengths_of(labels))
    ]
    return max(sums)


@pytest.mark.parametrize("seed", range(40))
def test_no_allowed_labelling_is_better(seed):
    rng = np.random.default_rng(seed)
    count, classes = rng.integers(1, 8), rng.integers(1, 4)
    shortest, low = int(rng.integers(1, 5)), 0.4 if rng.random() < 0.5 else None
    scores = rng.random((count, classes))
    labels = best_labels(scores, shortest, low)
    shortest = min(shortest, len(scores))
    assert all(n >= shortest or label == classes for label, n in lengths_of(labels.tolist()))
    columns = scores if low is None else np.hstack([scores, np.full((count, 1), low)])
    found = columns[range(count), labels].sum()
    assert found == pytest.approx(best_by_trying(scores, shortest, low))


def test_without_rules_each_sample_has_its_best_class():
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.7, 0.3]])
    times = np.array([0.0, 0.5, 1.0, 1.5, 1.8])
    found = find_segments(scores, ["a", "b"], times, SegmentRule())
    assert [(each.start, each.end, each.label) for each in found] == [
        (0.0, 0.5, "a"),
        (0.5, 1.5, "b"),
        (1.5, 1.8, "a"),
    ]
    assert [each.score for each in found] == pytest.approx([0.9, 0.6, 0.7])


def test_a_segment_reaches_the_threshold_and_goes_on_to_the_low_one():
    """Two hills: one reaches .8, the other only .6."""
    hill = np.array([0.1, 0.4, 0.6, 0.9, 0.6, 0.4, 0.1, 0.4, 0.6, 0.4, 0.1])
    scores = np.stack([hill, np.zeros(11)], 1)
    rule = SegmentRule(threshold=0.8, low=0.5)
    (found,) = find_segments(scores, ["a", "b"], np.arange(12.0), rule)
    assert (found.start, found.end) == (2, 5)
    rule = SegmentRule(threshold=0.8, low=0.3)
    (found,) = find_segments(scores, ["a", "b"], np.arange(12.0), rule)
    assert (found.start, found.end) == (1, 6)
    rule = SegmentRule(threshold=0.5, low=0.5)
    assert len(find_segments(scores, ["a", "b"], np.arange(12.0), rule)) == 2


def test_background_is_no_segment():
    scores = np.eye(3)[[0, 1, 2, 2, 1]]
    rule = SegmentRule(background=("b",))
    found = find_segments(scores, ["a", "b", "c"], np.arange(6.0), rule)
    assert [(each.start, each.end, each.label) for each in found] == [(0, 1, "a"), (2, 4, "c")]


def test_a_flicker_is_no_segment_where_one_lasts_longer():
    scores = np.full((20, 2), [0.8, 0.2])
    scores[9:11] = [0.3, 0.7]
    assert len(find_segments(scores, ["a", "b"], np.arange(21.0), SegmentRule())) == 3
    (found,) = find_segments(scores, ["a", "b"], np.arange(21.0), SegmentRule(shortest=6))
    assert (found.start, found.end, found.label) == (0, 20, "a")
    # One sample more is less wrong than two that are left out.
    _, found, _ = find_segments(scores, ["a", "b"], np.arange(21.0), SegmentRule(shortest=3))
    assert (found.end - found.start, found.label) == (3, "b")


def test_smoothing_is_the_mean_of_neighbours():
    scores = np.random.default_rng(0).random((10, 2))
    assert smooth(scores, 1) is scores
    found = smooth(scores, 5)
    assert found[4] == pytest.approx(scores[2:7].mean(0))
    assert found[0] == pytest.approx(scores[:3].mean(0))
    assert smooth(scores, 4)[4] == pytest.approx(scores[3:7].mean(0))
    assert smooth(scores, 99)[4] == pytest.approx(scores.mean(0))


def test_nothing_is_no_segment():
    assert find_segments(np.zeros((0, 2)), ["a", "b"], np.zeros(1), SegmentRule()) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_labelling_is_better_where_segments_cost(seed):
    rng = np.random.default_rng(seed)
    count, classes, shortest = rng.integers(2, 8), rng.integers(1, 4), int(rng.integers(1, 4))
    low, cost = 0.4 if rng.random() < 0.5 else None, float(rng.random())
    free = [0] if rng.random() < 0.5 else []
    scores = rng.random((count, classes))
    labels = best_labels(scores, shortest, low, cost, free)
    columns = scores if low is None else np.hstack([scores, np.full((count, 1), low)])

    def value(labels):
        runs = lengths_of(labels)
        segments = [n for label, n in runs if label < classes and label not in free]
        if any(n < min(shortest, count) for n in segments):
            return -np.inf
        return columns[range(count), list(labels)].sum() - cost * len(segments)

    best = max(map(value, product(range(columns.shape[1]), repeat=int(count))))
    assert value(labels.tolist()) == pytest.approx(best)


def test_a_segment_that_costs_more_than_it_gains_is_none():
    scores = np.full((20, 2), [0.8, 0.2])
    scores[9:11] = [0.3, 0.7]  # gains .8 in two samples, by two more segments
    for cost, segments in ((0.3, 3), (0.5, 1)):
        rule = SegmentRule(cost=cost)
        assert len(find_segments(scores, ["a", "b"], np.arange(21.0), rule)) == segments
