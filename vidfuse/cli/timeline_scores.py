"""The part of ``vidfuse evaluate`` that prints how good timelines are."""

from __future__ import annotations

from collections.abc import Sequence

from vidfuse.cli.console import shortened, table
from vidfuse.timeline.results import Amount, Measure, TimelineEvaluation

LARGEST_MATRIX = 12  # classes whose confusion still fits a terminal


def timeline_text(result: TimelineEvaluation) -> str:
    """The metrics as text: over all, per class, events, and the confusion of few classes."""
    minutes = sum(each.seconds for each in result.videos) / 60
    segments = sum(each.true_events for each in result.videos)
    lines = [
        _overall(result),
        "",
        f"videos      {len(result.videos)} ({minutes:.1f} min, {segments} annotated segments), "
        f"{result.failed} failed",
        f"interval    {result.interval_method}",
        "baselines   look at no video: the most frequent class everywhere, and classes drawn by "
        "their share of the time",
        "",
        _classes(result),
        "",
        _events(result),
    ]
    if len(result.labels) <= LARGEST_MATRIX + 1:
        lines += ["", _confusion(result)]
    return "\n".join(lines)


def _overall(result: TimelineEvaluation) -> str:
    named = {
        "frame accuracy": result.frame_accuracy,
        "  where annotated": result.foreground_accuracy,
        "frame F1, macro": result.frame_f1,
        **{f"segmental F1@{name}": each for name, each in result.segment_f1.items()},
        "edit score": result.edit_score,
        **{
            "mAP, mean of these" if name == "mean" else f"mAP at tIoU {name}": each
            for name, each in result.mean_ap.items()
            if each.value is not None
        },
    }
    rows = [
        (
            name,
            _number(each.value),
            _interval(each.interval),
            _number(each.most_frequent),
            _number(each.chance),
        )
        for name, each in named.items()
    ]
    return table(("", "value", "95 % interval", "most frequent", "chance"), rows)


def _classes(result: TimelineEvaluation) -> str:
    def pair(measure: Measure) -> tuple[str, str]:
        return _number(measure.value), _interval(measure.interval)

    rows = [
        (
            each.label,
            _number(each.precision),
            _number(each.recall),
            *pair(each.frame_f1),
            *pair(each.segment_f1),
            _number(each.average_precision.value),
        )
        for each in result.per_class
    ]
    header = ("class", "precision", "recall", "frame F1", "interval", "F1@50", "interval", "AP@0.5")
    return table(header, rows)


def _events(result: TimelineEvaluation) -> str:
    def columns(amount: Amount, digits: int) -> tuple[str, ...]:
        return (
            f"{amount.true:.{digits}f}",
            f"{amount.predicted:.{digits}f}",
            _interval(amount.ratio_interval),
            _number(amount.correlation),
        )

    rows = [
        (each.label, *columns(each.events, 0), *columns(each.seconds, 1))
        for each in result.per_class
    ]
    header = ("class", "events", "predicted", "ratio", "r", "seconds", "predicted", "ratio", "r")
    return table(header, rows)


def _confusion(result: TimelineEvaluation) -> str:
    rows = [
        (label, *(f"{count / result.rate:.0f}" for count in counts))
        for label, counts in zip(result.labels, result.confusion_matrix, strict=True)
    ]
    return table(("seconds, true \\ predicted", *shortened(result.labels)), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "-"
