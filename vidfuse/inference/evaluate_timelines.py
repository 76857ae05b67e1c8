"""Measuring timelines, of a model or from a file, on annotated videos."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vidfuse.atomic import ADVICE, make_writable, write_whole
from vidfuse.data.files import expand_inputs
from vidfuse.data.timeline import Timeline, beyond_the_end, timeline_of
from vidfuse.data.timelines import Annotations, write_timelines
from vidfuse.data.timelines.pairing import LOSES_EMPTY, find_video, namesake, read_annotations
from vidfuse.errors import InputError, UnknownNameError, UserError
from vidfuse.features.build import one_line
from vidfuse.inference.config import TimelineConfig
from vidfuse.inference.predictor import AnyModel
from vidfuse.inference.timeline import TimelinePredictor
from vidfuse.progress import Reporter
from vidfuse.results import Failure
from vidfuse.streams import csv_cell
from vidfuse.timeline.counts import VideoPair
from vidfuse.timeline.results import TimelineEvaluation, VideoScore
from vidfuse.timeline.summary import summarise_timelines

RATE = 25.0
"""Moments per second at which timelines are compared."""
MOST_MOMENTS = 100_000_000  # in a video: a month at the usual rate


@dataclass(slots=True)
class Predicted:
    """The timelines that are measured.

    Attributes:
        timelines: By the path as the annotations name it.
        classes: Those that the predictions are of.
        background: Classes that are no segments.
        in_training: Videos that were used in training or validation; None without a model.
        model: The model's file; None without one.
        failures: Videos that could not be predicted.
        warnings: What may make the numbers mean less.
    """

    timelines: dict[Path, Timeline]
    classes: list[str]
    background: tuple[str, ...] = ()
    in_training: int | None = None
    model: str | None = None
    failures: list[InputError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fail(self, error: InputError, reporter: Reporter) -> None:
        """Leave a video out, and say so at once."""
        self.failures.append(error)
        reporter.warn(one_line(error))


def evaluate_timelines(
    annotations: Path,
    *,
    model: AnyModel | None,
    config: TimelineConfig,
    videos: Sequence[Path] = (),
    subset: str = "auto",
    predictions: Path | None = None,
    rate: float = RATE,
    fps: float | None = None,
    out: Path | None = None,
    reporter: Reporter,
) -> TimelineEvaluation:
    """Measure timelines.

    Args:
        annotations: The truth: a file, or a folder of files.
        model: Makes the timelines, where `predictions` does not.
        config: How it is used; its `background` also holds for the annotations.
        videos: Files and folders among which videos are looked for.
        subset: Which videos a model is measured on: ``auto`` and ``test`` those that it has not
            seen, ``train`` and ``val`` those that it was trained and chosen on, or ``all``.
        predictions: Timelines that were made before: a file, or a folder of files.
        rate: Moments per second at which they are compared.
        fps: Frames per second of the videos, for annotations that count frames.
        out: Folder for the results of each video, the confusion and the predicted timelines.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: Files cannot be read or written, the model cannot be used, or there is nothing to
            measure on.
    """
    if out is not None:
        make_writable(out, ADVICE)
    with reporter.measure("scan"):
        truth = read_annotations(annotations, fps=fps)
    warnings = list(truth.problems)
    background = config.nothing
    if not any(each.label not in background for one in truth.timelines for each in one.segments):
        raise UserError(f"{annotations}: no annotated segment to measure on", *warnings[:1])
    if predictions is not None:
        found = _from_file(truth, read_annotations(predictions, fps=fps), background, reporter)
    elif model is not None:
        folder = annotations if annotations.is_dir() else annotations.parent
        found = _by_model(truth, folder, videos, subset, model, config, background, reporter)
    else:
        raise ValueError("neither a model nor predictions")
    pairs = _pairs(truth, found)
    for pair in pairs:
        if pair.seconds * rate > MOST_MOMENTS:
            raise UserError(
                f"{pair.path}: {pair.seconds:g} seconds at a rate of {rate:g} are too many moments",
                "Check that times are in seconds, and --rate.",
            )
    classes = _classes(pairs, found)
    warnings += found.warnings
    for line in warnings:
        reporter.warn(line)
    if not any(pair.truth for pair in pairs):
        raise UserError(
            f"{annotations}: no annotated segment of a video to measure on",
            "Check that the videos are found, or their predictions.",
        )
    reporter.info(f"{len(pairs)} videos, {sum(len(pair.truth) for pair in pairs)} segments")
    with reporter.measure("metrics"):
        metrics = summarise_timelines(pairs, classes, rate=rate)
    result = TimelineEvaluation(
        **{each.name: getattr(metrics, each.name) for each in fields(metrics)},
        annotations=str(annotations),
        model=found.model,
        predictions=None if predictions is None else str(predictions),
        in_training=found.in_training,
        failed=len(found.failures),
        failures=[Failure(path=each.path, error=each.reason) for each in found.failures],
        warnings=warnings,
        timings=reporter.timings(),
    )
    if out is not None:
        _write(result, list(found.timelines.values()), out)
        reporter.info(f"Written: {out}")
    return result


def _by_model(
    truth: Annotations,
    folder: Path,
    videos: Sequence[Path],
    subset: str,
    model: AnyModel,
    config: TimelineConfig,
    background: tuple[str, ...],
    reporter: Reporter,
) -> Predicted:
    """The timelines that the model makes of the annotated videos."""
    _check_background(background, truth, model.classes)
    if background:  # of which the predictor takes only what the model knows
        known = ",".join(name for name in background if name in model.classes)
        config = replace(config, background=known or None)
    predictor = TimelinePredictor(model, config, reporter)
    nothing = (*background, *predictor.rule.background)
    found = Predicted({}, model.classes, nothing, 0, str(model.path))
    places = _find_videos(truth, folder, videos, found, reporter)
    parts = _parts(predictor, list(places.values()))
    part = "test" if subset == "auto" else subset
    chosen = {path: each for path, each in places.items() if part in ("all", parts[each])}
    if parts and not chosen:
        where = ", ".join(f"{count} in {name}" for name, count in Counter(parts.values()).items())
        raise UserError(
            f"no video to measure on: of those annotated the model knows {where}",
            "Choose others with --subset, or all.",
        )
    if left_out := len(parts) - len(chosen):
        known = "that the model was trained or chosen on" if part == "test" else f"not in {part}"
        reporter.info(f"{left_out} videos {known} are left out (--subset)")
    with closing(predictor.pool):
        for path, video in chosen.items():
            record = predictor.timeline(video)
            if record.error is not None:
                found.fail(InputError(video, record.error), reporter)
                continue
            found.warnings += [f"{path}: {line}" for line in record.warnings]
            found.timelines[path] = timeline_of(record, path)
    found.in_training = seen = sum(parts[video] != "test" for video in chosen.values())
    if seen:
        found.warnings.append(f"{seen} of these videos were used in training or validation")
    return found


def _find_videos(
    truth: Annotations,
    folder: Path,
    videos: Sequence[Path],
    found: Predicted,
    reporter: Reporter,
) -> dict[Path, Path]:
    """The annotated videos, by how the annotations name them.

    Raises:
        UserError: One is annotated twice.
    """
    named: list[Path] = []
    for each in expand_inputs([str(video) for video in videos]):
        if isinstance(each, InputError):
            found.warnings.append(one_line(each))
        else:
            named.append(each)
    places: dict[Path, Path] = {}
    paths: dict[str, Path] = {}
    for path in map(_path, truth.timelines):
        place = find_video(path, folder, named)
        if isinstance(place, InputError):
            found.fail(place, reporter)
            continue
        places[path] = place
        if (other := paths.setdefault(os.path.abspath(place), path)) != path:
            raise UserError(
                f"{place} is annotated twice: as {other} and as {path}",
                "Give all its segments one path.",
            )
    if more := [str(each) for each in named if os.path.abspath(each) not in paths]:
        found.warnings.append(f"{len(more)} videos are not annotated: {', '.join(more[:5])}")
    return places


def _parts(predictor: TimelinePredictor, videos: Sequence[Path]) -> dict[Path, str]:
    """The part of the model's training that each video was in: train, val, or else test."""
    with predictor.reporter.measure("scan"):
        contents = predictor.extractor.index.contents(videos)
    digests = {video: "" if isinstance(content, InputError) else content.digest
               for video, content in contents.items()}  # fmt: skip
    return {video: predictor.card.part_of(digest) for video, digest in digests.items()}


def _from_file(
    truth: Annotations,
    predictions: Annotations,
    background: tuple[str, ...],
    reporter: Reporter,
) -> Predicted:
    """The timelines of a file that are of the annotated videos."""
    names = {each.label for one in predictions.timelines for each in one.segments}
    _check_background(background, truth, names)
    found = Predicted({}, sorted(names), background)
    found.warnings += predictions.problems
    absent: list[Path] = []
    for one in truth.timelines:
        path = _path(one)
        other = namesake(path, predictions.timelines, _path)
        if isinstance(other, InputError):
            found.fail(other, reporter)
        elif other is not None:
            found.timelines[path] = other
        elif predictions.format in LOSES_EMPTY:
            absent.append(path)
            found.timelines[path] = Timeline(path, [])
        else:
            found.fail(InputError(path, "there are no predictions of it"), reporter)
    if absent:
        found.warnings.append(
            f"{len(absent)} videos are not among the predictions; as that format leaves out those "
            f"without segments, they count as such: {', '.join(map(str, absent[:5]))}"
        )
    used = {id(each) for each in found.timelines.values()}
    more = [str(each.path) for each in predictions.timelines if id(each) not in used]
    if more:
        found.warnings.append(
            f"{len(more)} videos with predictions are not annotated: {', '.join(more[:5])}"
        )
    return found


def _path(video: Timeline) -> Path:
    assert video.path is not None  # as read_annotations has it
    return video.path


def _check_background(names: Sequence[str], truth: Annotations, classes: Iterable[str]) -> None:
    labels = {*classes, *(each.label for one in truth.timelines for each in one.segments)}
    for name in names:
        if name not in labels:
            raise UnknownNameError("class of --background", name, labels)


def _pairs(truth: Annotations, found: Predicted) -> list[VideoPair]:
    """Truth and prediction of the videos that have both, without the background."""
    pairs = []
    for one in truth.timelines:
        path = _path(one)
        if path not in found.timelines:
            continue
        other = found.timelines[path]
        true, predicted = (
            [each for each in side.segments if each.label not in found.background]
            for side in (one, other)
        )
        if warning := beyond_the_end(path, true, other.duration):
            found.warnings.append(warning)
        last = max((each.end for each in (*true, *predicted)), default=0.0)
        seconds = max(one.duration or 0.0, other.duration or 0.0) or last
        true, predicted = (
            [replace(each, end=min(each.end, seconds)) for each in side if each.start < seconds]
            for side in (true, predicted)
        )
        pairs.append(VideoPair(str(path), true, predicted, seconds, one.group or other.group))
    points = sum(each.end == each.start for pair in pairs for each in pair.truth)
    if points:
        found.warnings.append(
            f"{points} annotated segments have no length: they are in no frame, and are only found "
            "by segments without length"
        )
    return pairs


def _classes(pairs: Sequence[VideoPair], found: Predicted) -> list[str]:
    """The classes of the predictions, and those that are only in the annotations."""
    known = [name for name in found.classes if name not in found.background]
    true = {each.label for pair in pairs for each in pair.truth}
    more = sorted(true - set(known))
    if more:
        count = sum(each.label in more for pair in pairs for each in pair.truth)
        found.warnings.append(
            f"{count} annotated segments are of classes that are never predicted, and count as "
            f"missed ({', '.join(more[:10])}); name classes that shall not count with --background"
        )
    return known + more


def _write(result: TimelineEvaluation, predicted: list[Timeline], folder: Path) -> None:
    """Write the results of each video, the confusion of moments, and the timelines."""
    rows = [_flat(each) for each in result.videos]
    _write_table(folder / "videos.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    confusion = [
        [label, *counts]
        for label, counts in zip(result.labels, result.confusion_matrix, strict=True)
    ]
    _write_table(folder / "confusion.csv", [["true \\ predicted", *result.labels], *confusion])
    write_timelines(predicted, folder / "predictions.jsonl")


def _flat(score: VideoScore) -> dict[str, Any]:
    row = score.to_dict()
    by_overlap = row.pop("segment_f1")
    return row | {f"segment_f1_{name}": value for name, value in by_overlap.items()}


def _write_table(file: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write a file of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(csv_cell, row) for row in rows])
    write_whole(file, text.getvalue())
