"""Live prediction: a model on a stream, which decides as frames come."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vidfuse.errors import UserError
from vidfuse.features.encode import check_finite
from vidfuse.inference.config import TIMELINE_FIELDS, TimelineConfig
from vidfuse.inference.predictor import AnyModel
from vidfuse.inference.timeline import STEPS, TimelinePredictor
from vidfuse.inference.windows import Features, LastWindow, Scores
from vidfuse.progress import Reporter
from vidfuse.results import ClassScore, LiveRecord
from vidfuse.video.live import LiveRequest, LiveSource, LiveStream, Sample

if TYPE_CHECKING:
    from vidfuse.backbones.precision import PrecisionChoice
    from vidfuse.heads.base import State

PATIENCE = 30.0  # seconds without a frame
LONGEST_STEP = 1.0  # seconds from one decision to the next, unless --step says otherwise
LEAST_HELD = 4  # samples that may wait, however short the window is
OF_STREAMS = ("window", "step")  # of the settings of timelines


class Decider(Protocol):
    """Decides on samples that follow each other."""

    def add(self, features: Features) -> Scores | None:
        """Take the next sample ``[D, g, g]``; returns class probabilities ``[C]`` if it decides."""

    def finish(self) -> Scores | None:
        """End the stream; returns class probabilities ``[C]`` if there was no decision yet."""


class StepByStep:
    """Reads each sample once, with a recurrence that remembers those before.

    Args:
        predictor: Of a model whose head is `causal`.
        step: Samples from one decision to the next.
    """

    def __init__(self, predictor: LivePredictor, step: int) -> None:
        self._predictor, self._step = predictor, step
        self._state: State = None
        self._count = 0

    def add(self, features: Features) -> Scores | None:
        """Take the next sample; see `Decider`."""
        predictor = self._predictor
        with predictor.reporter.measure("head"):
            scores, self._state = predictor.model.next_probabilities(
                features, self._state, predictor.device
            )
        self._count += 1
        return None if self._count % self._step else predictor.checked(scores)

    def finish(self) -> Scores | None:
        """Nothing: it decides from the first step on."""
        return None


class LivePredictor(TimelinePredictor):
    """A model on a stream.

    A model of clips is asked about the last window, again and again. One that classifies each
    moment goes from sample to sample where it is a recurrence that needs no later ones; any other
    is asked about the last window, of which the newest moment counts.

    Args:
        card: The model, or its file.
        config: How it is used.
        reporter: Receives warnings and collects the time of each stage.

    Raises:
        UserError: The model cannot be used here or on streams, or a setting means nothing there.
    """

    def __init__(self, card: AnyModel, config: TimelineConfig, reporter: Reporter) -> None:
        plain = TimelineConfig()
        for name in {"views", *TIMELINE_FIELDS}.difference(OF_STREAMS):
            if getattr(config, name, None) != getattr(plain, name, None):
                raise UserError(f"--{name.replace('_', '-')} is not for --live", "Leave it out.")
        super().__init__(card, config, reporter)
        self._choice: PrecisionChoice | None = None
        self.causal = self.dense and self.model.head.causal
        seconds = config.step
        if seconds is None:
            seconds = 0.0 if self.causal else min(self.length / self.rate / STEPS, LONGEST_STEP)
        self.step = max(1, round(seconds * self.rate))

    def request(self) -> LiveRequest:
        """The request for a stream that it can read."""
        spec = self.extractor.spec
        return LiveRequest(
            rate=self.rate,
            gap=self.length / self.rate,
            hold=max(LEAST_HELD, self.length // 2),
            size=spec.size,
            crop=spec.crop,  # type: ignore[arg-type]  # checked with the options
            interpolation=spec.interpolation,
            crop_fraction=spec.crop_fraction,
        )

    def decider(self) -> Decider:
        """A new decider, for one run of samples."""
        if self.causal:
            return StepByStep(self, self.step)
        first = self.step if self.dense else self.length
        return LastWindow(self.classify, self.length, self.step, first)

    def encode(self, samples: Sequence[Sample]) -> Features:
        """Features ``[N, D, g, g]`` of some samples.

        Raises:
            InputError: They do not fit float16.
        """
        engine, grid = self.extractor.encoder.engine, self.extractor.spec.grid
        pixels = np.stack([sample.pixels for sample in samples])
        with self.reporter.measure("forward"):
            if self._choice is None:
                self._choice = engine.choose(pixels, many=False)
            (features,) = engine.features([pixels], self._choice.precision, [grid])
        check_finite(features, str(self.card.path))
        return features


def live_records(
    predictor: LivePredictor, source: LiveSource, top: int, patience: float = PATIENCE
) -> Generator[LiveRecord, None, None]:
    """The decisions on a stream, as they are made.

    Args:
        predictor: The model.
        source: Where the stream comes from.
        top: How many classes each record lists.
        patience: Seconds without a frame after which it is given up.

    Raises:
        InputError: Nothing came for too long.
        UserError: The model's scores are not finite.
    """
    _ = predictor.extractor.encoder.engine  # loaded before frames come, which would have to wait
    stream = LiveStream(
        source,
        predictor.request(),
        patience=patience,
        memory=predictor.config.memory_bytes,
        reporter=predictor.reporter,
    )
    run = LiveRun(predictor, -1)
    newest: Sample | None = None
    try:
        with closing(stream.batches()) as batches:
            for batch in batches:
                for newest, features in zip(batch, predictor.encode(batch), strict=True):
                    if not run.goes_on(newest):
                        run = LiveRun(predictor, newest.run)
                    for scores in run.add(newest, features):
                        yield record_of(predictor, source, newest, scores, top)
    finally:
        if stream.dropped:
            predictor.reporter.warn(f"{source.name}: frames left out: {stream.dropped}")
    last = run.finish()
    if newest is not None and last is not None:
        yield record_of(predictor, source, newest, last, top)


class LiveRun:
    """Samples that follow each other, on their way to what decides.

    Args:
        predictor: The model.
        number: Of the run; see `Sample`.
    """

    def __init__(self, predictor: LivePredictor, number: int) -> None:
        self.number = number
        self._decider = predictor.decider()
        self._most = predictor.length
        self._next: int | None = None  # number of the next moment
        self._before: Features | None = None

    def goes_on(self, sample: Sample) -> bool:
        """True for a sample behind which too few were dropped to begin anew."""
        missing = 0 if self._next is None else sample.number - self._next
        return sample.run == self.number and missing <= self._most

    def add(self, sample: Sample, features: Features) -> Iterator[Scores]:
        """Take the next sample; in the place of those that were dropped stands the one before.

        Yields:
            Class probabilities ``[C]`` of each decision.
        """
        missing = 0 if self._next is None else sample.number - self._next
        before = features if self._before is None else self._before
        for each in [before] * missing + [features] * sample.moments:
            scores = self._decider.add(each)
            if scores is not None:
                yield scores
        self._next, self._before = sample.number + sample.moments, features

    def finish(self) -> Scores | None:
        """End the stream; see `Decider`."""
        return self._decider.finish()


def record_of(
    predictor: LivePredictor, source: LiveSource, newest: Sample, scores: Scores, top: int
) -> LiveRecord:
    """A decision that was made right now.

    Args:
        predictor: The model.
        source: Where the stream comes from.
        newest: The newest sample that it is made from.
        scores: Probability of each class ``[C]``.
        top: How many classes are listed.
    """
    ranked = [
        ClassScore(label=predictor.card.classes[i], score=round(float(scores[i]), 6))
        for i in np.argsort(-scores, kind="stable")[:top]
    ]
    return LiveRecord(
        source=source.name,
        time=round(newest.time, 6),
        label=ranked[0].label,
        score=ranked[0].score,
        delay=round(time.monotonic() - newest.arrived, 6),
        top=ranked,
    )
