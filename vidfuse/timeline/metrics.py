"""Agreement of predicted segments of a video with the true ones: frames, segments, events.

Each function looks at one video, or at the detections of one class, and gives counts that can be
added up over videos. Segments whose end is their start (point events) are in no frame, and overlap
only what has the same two times. Of what overlaps in time or has several tiers, all counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidfuse.data.timeline import Segment

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
_ROUNDING = 1e-9  # of times that are multiples of one another


def frame_confusion(
    truth: Iterable[Segment],
    predicted: Iterable[Segment],
    classes: Sequence[str],
    *,
    seconds: float,
    rate: float,
) -> Counts:
    """Moments of a video by true and predicted class.

    Moment k is at (k + 0.5) / rate seconds, and in a segment if start ≤ moment < end; so it does
    not matter how segments are cut. The predicted class of a moment is that of the segment with the
    highest score there (none counts as 0), the first of `classes` in a tie. If true segments
    overlap, a prediction is right that is one of them; a wrong one counts against the first of
    them in `classes`.

    Args:
        truth: The true segments.
        predicted: The predicted segments.
        classes: Names of the C classes; segments of others are not looked at.
        seconds: Length of the video; of one that is shorter than a moment there is one.
        rate: Moments per second.

    Returns:
        ``[C + 1, C + 1]``, rows are the true classes; the last row and column are no class at all.
    """
    count, nothing = max(1, round(seconds * rate)), len(classes)
    guessed = np.full(count, nothing)
    best = np.full(count, -1.0)
    for label, segments in enumerate(_by_class(predicted, classes)):
        scores = np.full(count, -1.0)
        for each in segments:
            inside = _moments(each, rate)
            scores[inside] = np.maximum(scores[inside], each.score or 0.0)
        better = scores > best
        guessed[better], best[better] = label, scores[better]
    first = np.full(count, nothing)
    right = np.zeros(count, bool)
    for label, segments in enumerate(_by_class(truth, classes)):
        present = np.zeros(count, bool)
        for each in segments:
            present[_moments(each, rate)] = True
        first[present & (first == nothing)] = label
        right |= present & (guessed == label)
    true = np.where(right, guessed, first)
    size = nothing + 1
    return np.bincount(true * size + guessed, minlength=size * size).reshape(size, size)


def _by_class(segments: Iterable[Segment], classes: Sequence[str]) -> list[list[Segment]]:
    found: dict[str, list[Segment]] = {name: [] for name in classes}
    for each in segments:
        if each.label in found:
            found[each.label].append(each)
    return list(found.values())


def _moments(segment: Segment, rate: float) -> slice:
    first, stop = (
        max(0, int(np.ceil(time * rate - 0.5 - _ROUNDING))) for time in (segment.start, segment.end)
    )
    return slice(first, stop)


def overlaps(predicted: Sequence[Segment], truth: Sequence[Segment]) -> Floats:
    """Intersection over union in time of each pair ``[P, M]``, whatever their classes.

    It is 1 for two point events at one time, whose union is empty.
    """
    start, end = (
        np.array([[getattr(each, name)] for each in predicted], float).reshape(-1, 1)
        for name in ("start", "end")
    )
    true_start, true_end = (
        np.array([getattr(each, name) for each in truth], float) for name in ("start", "end")
    )
    shared = (np.minimum(end, true_end) - np.maximum(start, true_start)).clip(0)
    union = (end - start) + (true_end - true_start) - shared
    same = (start == true_start) & (end == true_end)
    ratio: Floats = np.where(same, 1.0, shared / np.where(union > 0, union, 1.0))
    return ratio


def segments_right(truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float) -> Flags:
    """The predicted segments of a class in a video that count as right in segmental F1@k.

    As of Lea et al. (Temporal Convolutional Networks for Action Segmentation and Detection, 2017)
    in the way of MS-TCN (Abu Farha and Gall, 2019): by start, each is compared with the true
    segment that it overlaps most (the first in a tie), and right if their intersection over union
    is at least `overlap` and no earlier one was right by the same true segment. It does not fall
    back on the true segment that it overlaps second most.

    Args:
        truth: True segments of the class, by start.
        predicted: Predicted ones.
        overlap: Least intersection over union, such as 0.5 for F1@50.

    Returns:
        ``[P]``, in the order of `predicted`. All that is not right is a false positive, and each
        true segment that made none right a false negative.
    """
    right = np.zeros(len(predicted), bool)
    if not truth or not predicted:
        return right
    ratios = overlaps(predicted, truth)
    taken = set()
    for index in sorted(range(len(predicted)), key=lambda i: _by_time(predicted[i])):
        nearest = int(ratios[index].argmax())
        if ratios[index, nearest] >= overlap and nearest not in taken:
            taken.add(nearest)
            right[index] = True
    return right


def detections_right(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> Flags:
    """The predicted segments of a class in a video that count as right in average precision.

    As in ActivityNet's evaluation, by which THUMOS'14 is measured, too: the one with the highest
    score chooses first (none counts as 0; of equal scores the earlier one), and takes of the true
    segments that are free and overlap it by at least `overlap` the one that it overlaps most. Each
    true segment is taken once.

    Returns:
        ``[P]``, in the order of `predicted`.
    """
    right = np.zeros(len(predicted), bool)
    if not truth or not predicted:
        return right
    ratios = overlaps(predicted, truth)
    order = sorted(
        range(len(predicted)), key=lambda i: (-(predicted[i].score or 0.0), _by_time(predicted[i]))
    )
    for index in order:
        nearest = int(ratios[index].argmax())
        if ratios[index, nearest] >= overlap:
            right[index] = True
            ratios[:, nearest] = -1.0  # taken
    return right


def _by_time(segment: Segment) -> tuple[float, float]:
    return segment.start, segment.end


def edit_score(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """1 less the normalised Levenshtein distance of two sequences of labels.

    The distance is divided by the length of the longer sequence (Lea et al., Segmental
    Spatiotemporal CNNs, 2016). Two empty sequences have 1, one empty sequence alone 0. Segments of
    one class that follow each other are several, as they were annotated.

    Args:
        truth: Labels of the true segments of a video, by start.
        predicted: Those of the predicted ones.
    """
    if not truth or not predicted:
        return float(not truth and not predicted)
    numbers = {label: number for number, label in enumerate(dict.fromkeys([*truth, *predicted]))}
    row_of = np.array([numbers[label] for label in truth])
    steps = np.arange(len(truth) + 1)
    distances = steps
    for count, label in enumerate(predicted, start=1):
        replaced = distances[:-1] + (row_of != numbers[label])
        best = np.concatenate([[count], np.minimum(distances[1:] + 1, replaced)])
        # A label that is missing costs one more than the cell before it, and so on along the row.
        distances = np.minimum.accumulate(best - steps) + steps
    return 1.0 - float(distances[-1]) / max(len(truth), len(predicted))


def average_precision(
    scores: ArrayLike, right: ArrayLike, positives: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[Any]:
    """Average precision of ranked detections of one class.

    It is the area under the interpolated curve: the precision at a recall is the highest at this
    or any larger recall, at all recalls that occur (PASCAL VOC from 2010 on, and ActivityNet; VOC
    2007 looked at eleven). Detections of equal score enter the ranking together, so that no order
    among them is an advantage.

    Args:
        scores: Of each detection ``[D]``.
        right: Whether each is right ``[D]``.
        positives: Number of true segments, in each of R resamples ``[R]``.
        weights: How often each detection occurs in each resample ``[R, D]``; None is once.

    Returns:
        ``[R]``; not a number where there is no true segment, 0 where there are no detections.
    """
    total = np.atleast_1d(np.asarray(positives, float))
    ranked = np.asarray(scores, float)
    times = np.ones((len(total), len(ranked))) if weights is None else np.asarray(weights, float)
    found = np.zeros(len(total))
    if len(ranked):
        order = np.argsort(-ranked, kind="stable")
        last = np.flatnonzero(np.diff(ranked[order], append=-np.inf))  # of each score
        times = times[:, order]
        hits = (times * np.asarray(right, bool)[order]).cumsum(1)[:, last]
        precision = hits / np.maximum(times.cumsum(1)[:, last], 1.0)
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        found = (np.diff(hits, axis=1, prepend=0.0) * highest).sum(1)
    return np.where(total > 0, found / np.maximum(total, 1.0), np.nan)
