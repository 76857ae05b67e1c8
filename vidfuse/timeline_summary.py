"""All that is reported about predicted timelines: metrics, intervals, trivial baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.timeline import Segment
from vidfuse.metrics import FEW_GROUPS
from vidfuse.results import Interval
from vidfuse.statistics import RESAMPLES, clusters_of, draw_clusters, percentile_interval
from vidfuse.timeline_metrics import (
    average_precision,
    detections_right,
    edit_score,
    frame_confusion,
    segments_right,
)
from vidfuse.timeline_results import (
    Amount,
    Measure,
    TimelineClass,
    TimelineMetrics,
    VideoScore,
)

OVERLAPS = (10, 25, 50)
"""Percent of overlap in segmental F1."""
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps in mean average precision."""
NOTHING = "(nothing)"
"""What a moment without a class is called."""
DRAWS = 10
"""Of the baseline of chance, whose mean is reported."""
LEAST_VIDEOS = 3
"""For a correlation over videos."""
MOST_CELLS = 4_000_000
"""Numbers of a resample that are in memory at once, at most."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VideoPair:
    """Truth and prediction of one video.

    Attributes:
        path: The video, as the annotations name it.
        truth: The true segments.
        predicted: The predicted segments.
        seconds: Length of the video.
        group: What it was cut from or shows; None is a group of its own.
    """

    path: str
    truth: Sequence[Segment]
    predicted: Sequence[Segment]
    seconds: float
    group: str | None = None


def summarise_timelines(
    pairs: Sequence[VideoPair], classes: Sequence[str], *, rate: float, seed: int = 0
) -> TimelineMetrics:
    """Measure predicted timelines.

    Intervals are percentiles of a bootstrap over groups of videos, or over videos where groups say
    nothing. The order of videos means nothing.

    Args:
        pairs: Truth and prediction of each video, of which at least one has a true segment.
        classes: Names of the C classes; segments of others are not looked at.
        rate: Moments per second, for what is measured per frame.
        seed: Seed of the bootstrap and of the baseline of chance.

    Raises:
        ValueError: There is no true segment of these classes.
    """
    pairs = [_known(pair, classes) for pair in sorted(pairs, key=lambda pair: pair.path)]
    if not any(pair.truth for pair in pairs):
        raise ValueError("there is no true segment of these classes")
    counted = _Counts(pairs, classes, rate)
    values = counted.measure(np.ones((1, len(pairs))))
    often, chance = _baselines(pairs, classes, rate, counted, seed)
    scored = any(each.score is not None for pair in pairs for each in pair.predicted)
    intervals, method = _intervals(counted, [pair.group for pair in pairs], seed)

    def measure(name: str, place: int | None = None) -> Measure:
        if not scored and name.startswith("ap"):
            return Measure(value=None, interval=None, most_frequent=None, chance=None)
        value, frequent, random = (_at(each[name], place) for each in (values, often, chance))
        if name == "frame_accuracy" and frequent is not None:
            frequent = max(frequent, counted.background)
        interval = intervals(name, place)
        return Measure(value=value, interval=interval, most_frequent=frequent, chance=random)

    def amount(name: str, place: int) -> Amount:
        true, predicted = (float(each[:, place].sum()) for each in counted.amounts[name])
        return Amount(
            true=true,
            predicted=predicted,
            ratio=_at(values[f"{name}_ratio"], place),
            ratio_interval=intervals(f"{name}_ratio", place),
            correlation=_at(values[f"{name}_correlation"], place),
            correlation_interval=intervals(f"{name}_correlation", place),
        )

    return TimelineMetrics(
        frame_accuracy=measure("frame_accuracy"),
        foreground_accuracy=measure("foreground_accuracy"),
        frame_f1=measure("frame_f1"),
        segment_f1={str(each): measure(f"segment_f1@{each}") for each in OVERLAPS},
        edit_score=measure("edit_score"),
        mean_ap={str(each): measure(f"ap@{each}") for each in (*TIOUS, "mean")},
        interval_method=method,
        per_class=[
            TimelineClass(
                label=label,
                precision=_at(values["precision"], place) or 0.0,
                recall=_at(values["recall"], place) or 0.0,
                frame_f1=measure("class_frame_f1", place),
                segment_f1=measure("class_segment_f1", place),
                average_precision=measure("ap_of_class", place),
                events=amount("events", place),
                seconds=amount("seconds", place),
            )
            for place, label in enumerate(classes)
        ],
        labels=[*classes, NOTHING],
        confusion_matrix=counted.confusion.sum(0).tolist(),
        rate=rate,
        videos=[counted.of_video(place) for place in range(len(pairs))],
    )


def _known(pair: VideoPair, classes: Sequence[str]) -> VideoPair:
    """The segments of these classes, by time."""
    truth, predicted = (
        sorted(
            (each for each in segments if each.label in classes),
            key=lambda each: (each.start, each.end, each.label),
        )
        for segments in (pair.truth, pair.predicted)
    )
    return replace(pair, truth=truth, predicted=predicted)


def _at(values: Floats, place: int | None) -> float | None:
    """The number of the first resample; None for what is not a number."""
    value = float(values[0] if place is None else values[0, place])
    return value if np.isfinite(value) else None


class _Counts:
    """What adds up over videos; a metric is a function of how often each video counts.

    Args:
        pairs: The videos V, segments by time.
        classes: The classes C.
        rate: Moments per second.
    """

    def __init__(self, pairs: Sequence[VideoPair], classes: Sequence[str], rate: float) -> None:
        self.pairs = pairs
        self.confusion = np.array(  # [V, C + 1, C + 1]
            [
                frame_confusion(p.truth, p.predicted, classes, seconds=p.seconds, rate=rate)
                for p in pairs
            ]
        )
        size, count = len(classes), len(pairs)
        self.hits = {overlap: np.zeros((count, size)) for overlap in OVERLAPS}
        self.edit = np.array(
            [
                edit_score([each.label for each in p.truth], [each.label for each in p.predicted])
                for p in pairs
            ]
        )
        self.amounts = {name: np.zeros((2, count, size)) for name in ("events", "seconds")}
        detected: list[list[_Detected]] = [[] for _ in classes]
        for video, pair in enumerate(pairs):
            for place, label in enumerate(classes):
                truth, predicted = (
                    [each for each in segments if each.label == label]
                    for segments in (pair.truth, pair.predicted)
                )
                for side, segments in enumerate((truth, predicted)):
                    self.amounts["events"][side, video, place] = len(segments)
                    self.amounts["seconds"][side, video, place] = sum(
                        each.end - each.start for each in segments
                    )
                for overlap in OVERLAPS:
                    right = segments_right(truth, predicted, overlap / 100)
                    self.hits[overlap][video, place] = right.sum()
                if predicted:
                    detected[place].append(_Detected.of(video, truth, predicted))
        self.detected = [_Detected.joined(each) for each in detected]

    @property
    def background(self) -> float:
        """Share of the moments that have no true class."""
        return float(self.confusion[:, -1].sum() / self.confusion.sum())

    def of_video(self, video: int) -> VideoScore:
        """The metrics of one video."""
        pair = self.pairs[video]
        alone = np.zeros((1, len(self.pairs)))
        alone[0, video] = 1
        values = {**self._of_frames(alone), **self._of_segments(alone)}
        return VideoScore(
            path=pair.path,
            group=pair.group,
            seconds=pair.seconds,
            frame_accuracy=float(values["frame_accuracy"][0]),
            foreground_accuracy=_at(values["foreground_accuracy"], None),
            segment_f1={str(each): _at(values[f"segment_f1@{each}"], None) for each in OVERLAPS},
            edit_score=float(self.edit[video]),
            true_events=len(pair.truth),
            predicted_events=len(pair.predicted),
        )

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """All metrics, ``[R]`` or ``[R, C]``; not a number where there is nothing to measure.

        Args:
            weights: How often each video counts, in each of R resamples ``[R, V]``.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                **self._of_frames(weights),
                **self._of_segments(weights),
                **self._of_detections(weights),
                **self._of_amounts("events", weights),
                **self._of_amounts("seconds", weights),
            }

    def _of_frames(self, weights: Floats) -> dict[str, Floats]:
        hits = weights @ np.diagonal(self.confusion, axis1=1, axis2=2)
        support, guessed = weights @ self.confusion.sum(2), weights @ self.confusion.sum(1)
        with np.errstate(invalid="ignore"):
            accuracy = hits.sum(1) / support.sum(1)
            foreground = hits[:, :-1].sum(1) / support[:, :-1].sum(1)
        hits, support, guessed = hits[:, :-1], support[:, :-1], guessed[:, :-1]
        f1 = 2 * hits / np.maximum(support + guessed, 1)
        f1[support == 0] = np.nan
        return {
            "frame_accuracy": accuracy,
            "foreground_accuracy": foreground,
            "frame_f1": _mean(f1),
            "class_frame_f1": f1,
            "precision": hits / np.maximum(guessed, 1),
            "recall": hits / np.maximum(support, 1),
        }

    def _of_segments(self, weights: Floats) -> dict[str, Floats]:
        all_segments = weights @ self.amounts["events"].sum(0)
        found = {"edit_score": weights @ self.edit / weights.sum(1)}
        with np.errstate(invalid="ignore"):
            for overlap in OVERLAPS:
                hits = weights @ self.hits[overlap]
                found[f"segment_f1@{overlap}"] = 2 * hits.sum(1) / all_segments.sum(1)
            found["class_segment_f1"] = 2 * hits / all_segments
        return found

    def _of_detections(self, weights: Floats) -> dict[str, Floats]:
        positives = weights @ self.amounts["events"][0]
        by_class = np.full((*positives.shape, len(TIOUS)), np.nan)
        for place, found in enumerate(self.detected):
            for rows in _chunks(len(weights), len(found.scores)):
                times = weights[rows][:, found.videos]
                for column, right in enumerate(found.right.T):
                    by_class[rows, place, column] = average_precision(
                        found.scores, right, positives[rows, place], times
                    )
        means = _mean(by_class.swapaxes(1, 2))
        return {
            **{f"ap@{tiou}": means[:, column] for column, tiou in enumerate(TIOUS)},
            "ap@mean": means.mean(1),
            "ap_of_class": by_class[:, :, TIOUS.index(0.5)],
        }

    def _of_amounts(self, name: str, weights: Floats) -> dict[str, Floats]:
        true, predicted = self.amounts[name]
        return {
            f"{name}_ratio": (weights @ predicted) / (weights @ true),
            f"{name}_correlation": _correlation(true, predicted, weights),
        }


@dataclass(frozen=True, slots=True)
class _Detected:
    """Predicted segments D of a class.

    Attributes:
        videos: The video that each is in ``[D]``.
        scores: Their scores ``[D]``.
        right: Whether they are right at each of the TIOUS ``[D, 5]``.
    """

    videos: NDArray[np.int64]
    scores: Floats
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, video: int, truth: Sequence[Segment], predicted: Sequence[Segment]) -> _Detected:
        return cls(
            np.full(len(predicted), video),
            np.array([each.score or 0.0 for each in predicted]),
            np.stack([detections_right(truth, predicted, tiou) for tiou in TIOUS], axis=1),
        )

    @classmethod
    def joined(cls, parts: Sequence[_Detected]) -> _Detected:
        if not parts:
            return cls(np.zeros(0, int), np.zeros(0), np.zeros((0, len(TIOUS)), bool))
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("videos", "scores", "right")
            )
        )


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is a number; not a number where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0.0).sum(-1) / known.sum(-1)
    return mean


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation over videos of each class ``[R, C]`` of two amounts ``[V, C]``."""
    if len(x) < LEAST_VIDEOS:
        return np.full((len(weights), x.shape[1]), np.nan)
    x, y = x - x.mean(0), y - y.mean(0)  # less of the digits are lost in what follows
    total = weights.sum(1, keepdims=True)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mean_x * mean_y
    variances = (weights @ x**2 / total - mean_x**2) * (weights @ y**2 / total - mean_y**2)
    variances[variances < 1e-12] = np.nan
    correlation: Floats = (covariance / np.sqrt(variances)).clip(-1, 1)
    return correlation


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    at_once = max(1, MOST_CELLS // max(1, columns))
    return (slice(first, first + at_once) for first in range(0, rows, at_once))


class _Intervals:
    """95 % intervals of all metrics, None where a single group says nothing.

    Args:
        resampled: Values of each metric in all resamples ``[R]`` or ``[R, C]``.
    """

    def __init__(self, resampled: Mapping[str, Floats]) -> None:
        self._resampled = resampled

    def __call__(self, name: str, place: int | None) -> Interval:
        """The interval of a metric, of a class where `place` is given."""
        if name not in self._resampled:
            return None
        values = self._resampled[name]
        column = values if place is None else values[:, place]
        known = column[np.isfinite(column)]
        return percentile_interval(known) if len(known) else None


def _intervals(counted: _Counts, groups: Sequence[str | None], seed: int) -> tuple[_Intervals, str]:
    """The intervals, and how they were made."""
    clusters, count = clusters_of(groups, len(groups))
    kind = "video" if count == len(groups) else "group"
    if count == 1:
        return _Intervals({}), f"none: a single {kind} says nothing about other {kind}s"
    parts = []
    for drawn in draw_clusters(count, seed):
        times = np.zeros((len(drawn), count))
        np.add.at(times, (np.arange(len(drawn))[:, None], drawn), 1)
        parts.append(counted.measure(times[:, clusters]))
    method = f"{kind} bootstrap, {RESAMPLES} resamples, {count} {kind}s"
    if count < FEW_GROUPS:
        method += f" (too narrow with fewer than {FEW_GROUPS})"
    return _Intervals({name: np.concatenate([p[name] for p in parts]) for name in parts[0]}), method


def _baselines(
    pairs: Sequence[VideoPair],
    classes: Sequence[str],
    rate: float,
    counted: _Counts,
    seed: int,
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The metrics of the most frequent class, and of chance."""
    shares = counted.confusion.sum((0, 2)) / counted.confusion.sum()
    events = counted.amounts["events"][0].sum(0)
    # Where all are point events no moment has a class, and their number decides.
    place = int(shares[:-1].argmax() if shares[:-1].any() else events.argmax())
    label, score = classes[place], float(shares[place])
    ones = np.ones((1, len(pairs)))

    def measured(predictions: Sequence[Sequence[Segment]]) -> dict[str, Floats]:
        guessed = [
            replace(pair, predicted=each) for pair, each in zip(pairs, predictions, strict=True)
        ]
        return _Counts(guessed, classes, rate).measure(ones)

    often = measured([[Segment(0.0, pair.seconds, label, score)] for pair in pairs])
    lengths = [each.end - each.start for pair in pairs for each in pair.truth]
    length = max(float(np.mean(lengths)), 1 / rate)
    generator = np.random.default_rng(seed)
    draws = [
        measured([_drawn(pair.seconds, length, classes, shares, generator) for pair in pairs])
        for _ in range(DRAWS)
    ]
    means: dict[str, Any] = {
        name: _mean(np.stack([draw[name] for draw in draws], axis=-1)) for name in often
    }
    return often, means


def _drawn(
    seconds: float,
    length: float,
    classes: Sequence[str],
    shares: Floats,
    generator: np.random.Generator,
) -> list[Segment]:
    """Pieces of a video with classes drawn by their shares; equal neighbours are one segment."""
    count = max(1, int(np.ceil(seconds / length)))
    labels = generator.choice(len(shares), count, p=shares).tolist()
    found, first = [], 0
    for label, run in groupby(labels):
        stop = first + len(list(run))
        if label < len(classes):
            score = float(shares[label])
            start, end = first * length, min(stop * length, seconds)
            found.append(Segment(start, end, classes[label], score))
        first = stop
    return found
