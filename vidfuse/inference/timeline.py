"""Timelines: what happens when in videos of any length, by a clip model that slides over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vidfuse.errors import InputError, UserError
from vidfuse.features.dense import dense_features, dense_spec, first_sample, window_rate
from vidfuse.inference.config import TimelineConfig
from vidfuse.inference.predictor import AnyModel, Predictor
from vidfuse.inference.segments import SegmentRule, find_segments
from vidfuse.inference.windows import Features, Scores, SlidingWindow
from vidfuse.progress import Reporter
from vidfuse.results import SegmentRecord, TimelineRecord
from vidfuse.training.config import DENSE
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.pool import DecodePool
from vidfuse.video.stretch import frame_rate

STEPS = 4  # windows begin a quarter of their length apart
SEGMENT_COST = 0.2  # of the length of a short segment
RATE_ERROR = 5e-7  # of a rate with six digits
MOST_MOVED = 0.1  # of the time between two samples
WINDOW = 2.0  # seconds, of a model that does not know how long its clips were


@dataclass(frozen=True, slots=True)
class Part:
    """The scores of a part of a video that could be read.

    Attributes:
        first: Number of its first sample. Sample k stands for the time from k / rate to
            (k + 1) / rate.
        scores: Probability of each class at each sample ``[N, C]``.
        end: Where the part ends, in seconds.
    """

    first: int
    scores: Scores
    end: float


@dataclass(slots=True)
class VideoScores:
    """The scores of a video.

    Attributes:
        parts: What could be read, in order.
        duration: Seconds of the video.
        fps: Frames per second, on average.
        warnings: What went wrong without being fatal.
    """

    parts: list[Part] = field(default_factory=list)
    duration: float = 0.0
    fps: float = 0.0
    warnings: list[str] = field(default_factory=list)


class TimelinePredictor(Predictor):
    """A clip model that slides over long videos.

    Its window holds as many samples as the model reads frames of a clip, so the length of the
    window says how many samples a second has. A model that classifies each moment has the rate of
    its training, whatever the window.

    Args:
        card: The model, or its file, which is then read when it is needed.
        config: How it is used.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The model cannot be used here, or not for timelines.
    """

    pool_class: ClassVar[type[DecodePool]] = OpenClips

    def __init__(self, card: AnyModel, config: TimelineConfig, reporter: Reporter) -> None:
        if card.selects_frames or card.spec.window > 1:
            what = "selects its frames" if card.selects_frames else "reads windows of frames"
            raise UserError(
                f"{card.path}: it {what}, and cannot slide over a video",
                "Train a model with another head, or with an encoder of single frames.",
            )
        if (low := config.low_threshold) is not None and low > config.threshold:
            needed = "is above" if config.threshold else "needs"
            raise UserError(
                f"--low-threshold {needed} --threshold",
                "A segment reaches the one somewhere, and goes on while its score is as high as "
                "the other: --threshold 0.6 --low-threshold 0.4",
            )
        if config.views:
            raise UserError("a timeline has no views", "Leave out --views.")
        super().__init__(card, config, reporter)
        self.dense = card.metadata.get("timeline") == DENSE
        trained = float(card.metadata.get("clip_seconds", WINDOW))
        seconds = config.window or trained
        self.rate = window_rate(card.spec.frames, trained if self.dense else seconds)
        self.length = max(1, round(seconds * self.rate)) if self.dense else card.spec.frames
        step = seconds / STEPS if config.step is None else config.step
        self.step = int(np.clip(round(step * self.rate), 1, self.length))
        self.extractor.spec = dense_spec(card.spec, self.rate)
        self.extractor.more = []
        self.rule = SegmentRule(
            smooth=round(config.smooth * self.rate),
            cost=_segment_cost(card, config) * self.rate,
            shortest=max(1, int(np.ceil(config.min_duration * self.rate - 1e-6))),
            threshold=config.threshold,
            low=config.threshold if low is None else low,
            background=_background(card, config),
        )
        if unknown := [name for name in self.rule.background if name not in card.classes]:
            raise UserError(
                f"background: the model knows no class '{unknown[0]}'",
                f"Its classes: {', '.join(card.classes)}",
            )

    def timeline(self, path: Path) -> TimelineRecord:
        """The timeline of one video."""
        try:
            scores = self.scores(path)
        except InputError as error:
            return failure(str(path), error)
        segments = []
        for part in scores.parts:
            numbers = np.arange(part.first, part.first + len(part.scores) + 1)
            times = sample_times(self.rate, numbers)
            times = np.minimum(times, part.end)
            times[-1] = part.end  # which no sample need reach: less than half of one is none
            segments += find_segments(part.scores, self.card.classes, times, self.rule)
        return TimelineRecord(
            path=str(path),
            ok=True,
            duration=round(scores.duration, 6),
            fps=round(scores.fps, 3),
            segments=[
                SegmentRecord(
                    start=round(each.start, 6),
                    end=round(each.end, 6),
                    label=each.label,
                    score=each.score or 0.0,
                )
                for each in segments
            ],
            warnings=scores.warnings,
            error=None,
        )

    def scores(self, path: Path) -> VideoScores:
        """The scores of a video, at each of its samples that can be read.

        Raises:
            InputError: Nothing of it can.
        """
        listed = self.pool.stretches(str(path), self.extractor.spec.fps)
        stretches, _ = listed
        found = VideoScores(duration=stretches[-1].end, fps=frame_rate(stretches))
        run, warnings = None, dict[str, None]()
        error: InputError | None = None
        for stretch, entry in dense_features(self.extractor, self.pool, path, listed):
            first = first_sample(self.rate, stretch)
            if run is not None and (isinstance(entry, InputError) or run.next != first):
                found.parts.append(run.finish())
                run = None
            if isinstance(entry, InputError):
                error = entry
                warnings[f"{stretch.start:.1f} to {stretch.end:.1f} s: {entry.reason}"] = None
                continue
            run = run or Run(first, SlidingWindow(self.length, self.step, self.classify))
            run.add(entry.features, stretch.end)
            warnings |= dict.fromkeys(entry.info.warnings)
        if run is not None:
            run.end = found.duration  # behind the last sample there may be stretches without any
            found.parts.append(run.finish())
        if error is not None and not found.parts:
            raise error
        found.warnings = list(warnings)
        return found

    def classify(self, features: Features, lengths: NDArray[np.int64]) -> Scores:
        """Class probabilities as `SlidingWindow` wants them.

        Raises:
            UserError: They are not finite.
        """
        model = self.model
        with self.reporter.measure("head"):
            scores = model.probabilities(features, lengths, self.device, of_frames=self.dense)
        return self.checked(scores)

    def checked(self, scores: Scores) -> Scores:
        """The scores, if they are any.

        Raises:
            UserError: They are not finite.
        """
        if not np.isfinite(scores).all():
            raise UserError(f"{self.card.path}: its scores are not finite", "Train it again.")
        return scores


def sample_times(rate: float, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """The times at which samples begin, in seconds, with no more digits than are known.

    The rate has six (`window_rate`), so a time is known to ``time / rate * 5e-7``: 26.324999 may be
    26.325.

    Args:
        rate: Samples per second.
        numbers: Of the samples ``[N]``.
    """
    found = times = numbers / rate
    known = np.minimum(times / rate * RATE_ERROR, MOST_MOVED / rate)
    for digits in (5, 4, 3):
        short = np.round(times, digits)
        found = np.where(np.abs(times - short) <= known, short, found)
    return found


def _segment_cost(card: AnyModel, config: TimelineConfig) -> float:
    """The cost of a segment, in seconds of certainty.

    Where the user says nothing, it is a fifth of the length that nearly all segments of the
    training exceed: one of that length is found where its class leads by .2.
    """
    if config.segment_cost is not None:
        return config.segment_cost
    return SEGMENT_COST * float(card.metadata.get("segment_seconds", 0.0))


def _background(card: AnyModel, config: TimelineConfig) -> tuple[str, ...]:
    """The classes that are no segments: those named, and that of what was not annotated.

    An empty name is none at all.
    """
    if config.background is not None and not config.nothing:
        return ()
    learned = card.metadata.get("config", {}).get("background")
    known = card.metadata.get("timeline") and learned in card.classes
    return tuple(dict.fromkeys((*config.nothing, *((learned,) if known else ()))))


class Run:
    """Samples that follow each other without a gap, on their way through the window.

    Args:
        first: Number of the first one.
        window: Scores them.
    """

    def __init__(self, first: int, window: SlidingWindow) -> None:
        self.first = self.next = first
        self.end = 0.0
        self._window = window
        self._rows: list[Scores] = []

    def add(self, features: Features, end: float) -> None:
        """Take over the next samples ``[n, D, g, g]``, which end at ``end`` seconds."""
        self.next += len(features)
        self.end = end
        self._rows.append(self._window.add(features))

    def finish(self) -> Part:
        """All scores."""
        rows = [row for row in (*self._rows, self._window.finish()) if len(row)]
        return Part(self.first, np.concatenate(rows), self.end)


def failure(path: str, error: InputError) -> TimelineRecord:
    """The record of an input that cannot be used."""
    return TimelineRecord(
        path=path, ok=False, duration=None, fps=None, segments=[], warnings=[], error=error.reason
    )


def timeline_records(
    predictor: TimelinePredictor, inputs: Iterable[Path | InputError | None]
) -> Iterator[TimelineRecord]:
    """The timeline of each input, in order.

    Args:
        predictor: The model; it is closed when no more records are wanted.
        inputs: Videos; an ``InputError`` stands for an input that could not be found, None says
            that the next one is not there yet.
    """
    try:
        for item in inputs:
            if isinstance(item, InputError):
                yield failure(item.path, item)
            elif item is not None:
                yield predictor.timeline(item)
    finally:
        predictor.pool.close()
