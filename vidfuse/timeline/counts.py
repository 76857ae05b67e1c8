"""Counts that add up over videos, and the metrics of timelines as functions of their sums.

Whatever is estimated or resampled is the same function of how often each video counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.timeline import Segment
from vidfuse.timeline.metrics import (
    Floats,
    average_precision,
    detections_right,
    edit_score,
    frame_confusion,
    segments_right,
)
from vidfuse.timeline.results import VideoScore

OVERLAPS = (10, 25, 50)
"""Percent of overlap in segmental F1."""
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps in mean average precision."""
LEAST_VIDEOS = 3
"""For a correlation over videos."""
MOST_CELLS = 4_000_000
"""Numbers of a resample that are in memory at once, at most."""


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


class TimelineCounts:
    """Counts that add up over videos; a metric is a function of how often each video counts.

    Args:
        pairs: The videos V, segments by time.
        classes: The classes C.
        rate: Moments per second.
    """

    def __init__(self, pairs: Sequence[VideoPair], classes: Sequence[str], rate: float) -> None:
        self.pairs = pairs
        size, count = len(classes), len(pairs)
        self.confusion = np.zeros((size + 1, size + 1), np.int64)  # of all videos
        self.moments = {name: np.zeros((count, size + 1)) for name in ("right", "true", "guessed")}
        for video, pair in enumerate(pairs):
            found = frame_confusion(
                pair.truth, pair.predicted, classes, seconds=pair.seconds, rate=rate
            )
            self.confusion += found
            self.moments["right"][video] = found.diagonal()
            self.moments["true"][video] = found.sum(1)
            self.moments["guessed"][video] = found.sum(0)
        self.hits = {overlap: np.zeros((count, size)) for overlap in OVERLAPS}
        self.edit = np.array(
            [
                edit_score([each.label for each in p.truth], [each.label for each in p.predicted])
                for p in pairs
            ]
        )
        self.amounts = {name: np.zeros((2, count, size)) for name in ("events", "seconds")}
        detected: list[list[Detected]] = [[] for _ in classes]
        for video, pair in enumerate(pairs):
            for index, label in enumerate(classes):
                truth, predicted = (
                    [each for each in segments if each.label == label]
                    for segments in (pair.truth, pair.predicted)
                )
                for side, segments in enumerate((truth, predicted)):
                    self.amounts["events"][side, video, index] = len(segments)
                    self.amounts["seconds"][side, video, index] = sum(
                        each.end - each.start for each in segments
                    )
                for overlap in OVERLAPS:
                    right = segments_right(truth, predicted, overlap / 100)
                    self.hits[overlap][video, index] = right.sum()
                if predicted:
                    detected[index].append(Detected.of(video, truth, predicted))
        self.detected = [Detected.joined(each) for each in detected]

    @property
    def background(self) -> float:
        """Share of the moments that have no true class."""
        return float(self.confusion[-1].sum() / self.confusion.sum())

    def of_video(self, video: int) -> VideoScore:
        """The metrics of one video."""
        pair = self.pairs[video]
        alone = np.zeros((1, len(self.pairs)))
        alone[0, video] = 1
        values = {**self._of_frames(alone), **self._of_segments(alone)}
        f1 = {str(each): first_of(values[f"segment_f1@{each}"], None) for each in OVERLAPS}
        return VideoScore(
            path=pair.path,
            group=pair.group,
            seconds=pair.seconds,
            frame_accuracy=float(values["frame_accuracy"][0]),
            foreground_accuracy=first_of(values["foreground_accuracy"], None),
            segment_f1=f1,
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
        hits, support, guessed = (weights @ each for each in self.moments.values())
        with np.errstate(invalid="ignore"):
            accuracy = hits.sum(1) / support.sum(1)
            foreground = hits[:, :-1].sum(1) / support[:, :-1].sum(1)
        hits, support, guessed = hits[:, :-1], support[:, :-1], guessed[:, :-1]
        f1 = 2 * hits / np.maximum(support + guessed, 1)
        f1[support == 0] = np.nan
        return {
            "frame_accuracy": accuracy,
            "foreground_accuracy": foreground,
            "frame_f1": mean_of_known(f1),
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
        for index, found in enumerate(self.detected):
            for rows in _chunks(len(weights), len(found.scores)):
                times = weights[rows][:, found.videos]
                for column, right in enumerate(found.right.T):
                    by_class[rows, index, column] = average_precision(
                        found.scores, right, positives[rows, index], times
                    )
        means = mean_of_known(by_class.swapaxes(1, 2))
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
class Detected:
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
    def of(cls, video: int, truth: Sequence[Segment], predicted: Sequence[Segment]) -> Detected:
        """Those in one video."""
        return cls(
            np.full(len(predicted), video),
            np.array([each.score or 0.0 for each in predicted]),
            np.stack([detections_right(truth, predicted, tiou) for tiou in TIOUS], axis=1),
        )

    @classmethod
    def joined(cls, parts: Sequence[Detected]) -> Detected:
        """Those in several videos."""
        if not parts:
            return cls(np.zeros(0, int), np.zeros(0), np.zeros((0, len(TIOUS)), bool))
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("videos", "scores", "right")
            )
        )


def mean_of_known(values: Floats) -> Floats:
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


def first_of(values: Floats, index: int | None) -> float | None:
    """The number of the first resample; None for what is not a number."""
    value = float(values[0] if index is None else values[0, index])
    return value if np.isfinite(value) else None
