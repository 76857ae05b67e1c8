"""The results of measuring timelines, as dataclasses; see ``results``."""

from __future__ import annotations

from dataclasses import dataclass

from vidfuse.results import Failure, Interval, Result


@dataclass(frozen=True, kw_only=True)
class Measure(Result):
    """A number from 0 to 1, and what it is without looking at a video.

    Attributes:
        value: The number; None where there is nothing to measure it on, such as a mean average
            precision of segments without scores.
        interval: Its 95 % bootstrap interval over groups.
        most_frequent: The same number for the most frequent class in all of every video; of
            ``frame_accuracy`` for no class at all where that is right more often.
        chance: The same number for pieces as long as the true segments are on average, each of a
            class drawn by its share of the time; a mean of several draws.
    """

    value: float | None
    interval: Interval
    most_frequent: float | None
    chance: float | None


@dataclass(frozen=True, kw_only=True)
class Amount(Result):
    """The amount of a class, or the number: truth and prediction.

    Attributes:
        true: Over all videos.
        predicted: Likewise.
        ratio: ``predicted / true``; None where there is none in truth.
        ratio_interval: Its 95 % bootstrap interval over groups.
        correlation: Pearson's, of predicted and true amounts over videos; None with fewer than
            three videos or where one of the two is the same in all.
        correlation_interval: Its 95 % bootstrap interval over groups.
    """

    true: float
    predicted: float
    ratio: float | None
    ratio_interval: Interval
    correlation: float | None
    correlation_interval: Interval


@dataclass(frozen=True, kw_only=True)
class TimelineClass(Result):
    """The metrics of one class on timelines.

    Attributes:
        label: Its name.
        precision: Share of the moments predicted as it that are it.
        recall: Share of its moments that are predicted as it.
        frame_f1: F1 of its moments.
        segment_f1: Segmental F1@50.
        average_precision: At a tIoU of 0.5.
        events: Its segments.
        seconds: Their lengths together.
    """

    label: str
    precision: float
    recall: float
    frame_f1: Measure
    segment_f1: Measure
    average_precision: Measure
    events: Amount
    seconds: Amount


@dataclass(frozen=True, kw_only=True)
class VideoScore(Result):
    """The metrics of one video.

    Attributes:
        path: The video, as the annotations name it.
        group: What it was cut from or shows, where the annotations say.
        seconds: Its length.
        frame_accuracy: Share of moments that are right.
        foreground_accuracy: Of the moments that have a true class; None without any.
        segment_f1: Segmental F1 by overlap in percent; None without any segment.
        edit_score: See ``TimelineMetrics``.
        true_events: Its true segments.
        predicted_events: Its predicted ones.
    """

    path: str
    group: str | None
    seconds: float
    frame_accuracy: float
    foreground_accuracy: float | None
    segment_f1: dict[str, float | None]
    edit_score: float
    true_events: int
    predicted_events: int


@dataclass(frozen=True, kw_only=True)
class TimelineMetrics(Result):
    """The agreement of predicted timelines with true ones.

    Attributes:
        frame_accuracy: Share of moments whose class is right, among them those of no class.
        foreground_accuracy: The same among the moments that have a true class.
        frame_f1: F1 of moments, mean over the classes that occur.
        segment_f1: Segmental F1@10, @25 and @50, all classes together: key ``10``, ``25``, ``50``.
        edit_score: 1 less the normalised edit distance of the labels, mean over videos.
        mean_ap: Average precision, mean over the classes that occur, by tIoU: key ``0.3`` to
            ``0.7``, and ``mean`` of these.
        interval_method: How the intervals were made, or why there are none.
        per_class: The metrics of each class.
        labels: Names, in the order of ``confusion_matrix``; the last is no class.
        confusion_matrix: Moments by true class (rows) and predicted class, ``[C + 1, C + 1]``.
        rate: Moments per second.
        videos: The metrics of each video.
    """

    frame_accuracy: Measure
    foreground_accuracy: Measure
    frame_f1: Measure
    segment_f1: dict[str, Measure]
    edit_score: Measure
    mean_ap: dict[str, Measure]
    interval_method: str
    per_class: list[TimelineClass]
    labels: list[str]
    confusion_matrix: list[list[int]]
    rate: float
    videos: list[VideoScore]


@dataclass(frozen=True, kw_only=True)
class TimelineEvaluation(TimelineMetrics):
    """The agreement of a model's timelines, or of those in a file, with annotations.

    Attributes:
        annotations: The file of the truth.
        model: The model's file; None where there is none.
        predictions: The file of the predictions; None where a model made them.
        in_training: Videos that were used in training or validation; None without a model.
        failed: How many videos could not be measured.
        failures: Which, and why.
        warnings: What may make the numbers mean less.
        timings: Seconds of each stage.
    """

    annotations: str
    model: str | None
    predictions: str | None
    in_training: int | None
    failed: int
    failures: list[Failure]
    warnings: list[str]
    timings: dict[str, float]
