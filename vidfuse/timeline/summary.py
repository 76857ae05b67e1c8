"""All that is reported about predicted timelines: metrics, intervals, trivial baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from vidfuse.data.timeline import Segment, in_order
from vidfuse.metrics import FEW_GROUPS
from vidfuse.results import Interval
from vidfuse.statistics import RESAMPLES, clusters_of, draw_clusters, percentile_interval
from vidfuse.timeline.counts import (
    OVERLAPS,
    TIOUS,
    TimelineCounts,
    VideoPair,
    first_of,
    mean_of_known,
)
from vidfuse.timeline.metrics import Floats
from vidfuse.timeline.results import Amount, Measure, TimelineClass, TimelineMetrics

NOTHING = "(nothing)"
"""What a moment without a class is called."""
DRAWS = 10
"""Of the baseline of chance, whose mean is reported."""
Values = dict[str, Floats]
"""Each metric in R resamples, ``[R]`` or of each class ``[R, C]``."""


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
    counted = TimelineCounts(pairs, classes, rate)
    resampled, method = _resampled(counted, [pair.group for pair in pairs], seed)
    found = _Findings(
        counted,
        counted.measure(np.ones((1, len(pairs)))),
        *_baselines(pairs, classes, rate, counted, seed),
        resampled,
    )
    return TimelineMetrics(
        frame_accuracy=found.frame_accuracy(),
        foreground_accuracy=found.measure("foreground_accuracy"),
        frame_f1=found.measure("frame_f1"),
        segment_f1={str(each): found.measure(f"segment_f1@{each}") for each in OVERLAPS},
        edit_score=found.measure("edit_score"),
        mean_ap={str(each): found.precision(f"ap@{each}") for each in (*TIOUS, "mean")},
        interval_method=method,
        per_class=[found.of_class(label, index) for index, label in enumerate(classes)],
        labels=[*classes, NOTHING],
        confusion_matrix=counted.confusion.tolist(),
        rate=rate,
        videos=[counted.of_video(index) for index in range(len(pairs))],
    )


def _known(pair: VideoPair, classes: Sequence[str]) -> VideoPair:
    """The segments of these classes, by time."""
    truth, predicted = (
        in_order(each for each in segments if each.label in classes)
        for segments in (pair.truth, pair.predicted)
    )
    return replace(pair, truth=truth, predicted=predicted)


@dataclass(frozen=True, slots=True)
class _Findings:
    """The findings about each metric.

    Attributes:
        counted: Of the predictions.
        values: Over all videos.
        most_frequent: The same of the most frequent class.
        chance: The same of classes drawn by their share.
        resampled: In all resamples; None with a single group.
    """

    counted: TimelineCounts
    values: Values
    most_frequent: Values
    chance: Values
    resampled: Values | None

    def measure(self, name: str, index: int | None = None) -> Measure:
        """A metric, of the class with this index where one is given."""
        return Measure(
            value=first_of(self.values[name], index),
            interval=self.interval(name, index),
            most_frequent=first_of(self.most_frequent[name], index),
            chance=first_of(self.chance[name], index),
        )

    def frame_accuracy(self) -> Measure:
        """With the better one of the most frequent class and no class at all beside it."""
        found = self.measure("frame_accuracy")
        return replace(
            found, most_frequent=max(found.most_frequent or 0.0, self.counted.background)
        )

    def precision(self, name: str, index: int | None = None) -> Measure:
        """An average precision; none if no prediction has a score, since it ranks them."""
        if not any(s.score is not None for pair in self.counted.pairs for s in pair.predicted):
            return Measure(value=None, interval=None, most_frequent=None, chance=None)
        return self.measure(name, index)

    def of_class(self, label: str, index: int) -> TimelineClass:
        """The metrics of a class."""
        return TimelineClass(
            label=label,
            precision=first_of(self.values["precision"], index) or 0.0,
            recall=first_of(self.values["recall"], index) or 0.0,
            frame_f1=self.measure("class_frame_f1", index),
            segment_f1=self.measure("class_segment_f1", index),
            average_precision=self.precision("ap_of_class", index),
            events=self.amount("events", index),
            seconds=self.amount("seconds", index),
        )

    def amount(self, name: str, index: int) -> Amount:
        """The amount of a class."""
        true, predicted = (float(each[:, index].sum()) for each in self.counted.amounts[name])
        return Amount(
            true=true,
            predicted=predicted,
            ratio=first_of(self.values[f"{name}_ratio"], index),
            ratio_interval=self.interval(f"{name}_ratio", index),
            correlation=first_of(self.values[f"{name}_correlation"], index),
            correlation_interval=self.interval(f"{name}_correlation", index),
        )

    def interval(self, name: str, index: int | None) -> Interval:
        """The 95 % interval of a metric, by those resamples in which it is a number."""
        if self.resampled is None:
            return None
        values = self.resampled[name]
        column = values if index is None else values[:, index]
        known = column[np.isfinite(column)]
        return percentile_interval(known) if len(known) else None


def _resampled(
    counted: TimelineCounts, groups: Sequence[str | None], seed: int
) -> tuple[Values | None, str]:
    """The metrics in resamples of whole groups, and how these were made."""
    clusters, count = clusters_of(groups, len(groups))
    kind = "video" if count == len(groups) else "group"
    if count == 1:
        return None, f"none: a single {kind} says nothing about other {kind}s"
    parts = []
    for drawn in draw_clusters(count, seed):
        times = np.zeros((len(drawn), count))
        np.add.at(times, (np.arange(len(drawn))[:, None], drawn), 1)
        parts.append(counted.measure(times[:, clusters]))
    method = f"{kind} bootstrap, {RESAMPLES} resamples, {count} {kind}s"
    if count < FEW_GROUPS:
        method += f" (too narrow with fewer than {FEW_GROUPS})"
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, method


def _baselines(
    pairs: Sequence[VideoPair],
    classes: Sequence[str],
    rate: float,
    counted: TimelineCounts,
    seed: int,
) -> tuple[Values, Values]:
    """The metrics of the most frequent class, and of chance."""
    shares = counted.confusion.sum(1) / counted.confusion.sum()
    events = counted.amounts["events"][0].sum(0)
    # Where all are point events no moment has a class, and their number decides.
    index = int(shares[:-1].argmax() if shares[:-1].any() else events.argmax())
    label, score = classes[index], float(shares[index])
    ones = np.ones((1, len(pairs)))

    def measured(predictions: Sequence[Sequence[Segment]]) -> Values:
        guessed = [
            replace(pair, predicted=each) for pair, each in zip(pairs, predictions, strict=True)
        ]
        return TimelineCounts(guessed, classes, rate).measure(ones)

    often = measured([[Segment(0.0, pair.seconds, label, score)] for pair in pairs])
    lengths = [each.end - each.start for pair in pairs for each in pair.truth]
    length = max(float(np.mean(lengths)), 1 / rate)
    generator = np.random.default_rng(seed)
    draws = [
        measured([_drawn(pair.seconds, length, classes, shares, generator) for pair in pairs])
        for _ in range(DRAWS)
    ]
    means = {
        name: mean_of_known(np.stack([draw[name] for draw in draws], axis=-1)) for name in often
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
