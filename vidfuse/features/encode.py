"""From frames to features: jobs, and batches that span them, since a forward pass per short clip
wastes most of a machine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import Grid
from vidfuse.data.clip import Clip
from vidfuse.data.content import Content
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import Entry, EntryInfo
from vidfuse.video.frames import FrameRequest, Frames, Pixels

if TYPE_CHECKING:
    from vidfuse.backbones.engine import TorchEngine
    from vidfuse.backbones.precision import PrecisionChoice

BATCHES_AHEAD = 2  # for each stream, that are made before they are needed
Features = NDArray[np.float16]


@dataclass(eq=False, slots=True)
class Job:
    """One content to decode and encode, whatever the number of clips that have it.

    Attributes:
        clips: The clips that have it; the first one is decoded.
        key: Of its entry in the cache.
        request: Asks for its frames.
        content: What the first clip held when it was hashed; None is not asked.
        window: Frames that are encoded together.
        steps: Steps in time that a window gives.
        frames: Its frames, while they are not yet encoded; then all but their pixels.
        precision: In which it is encoded.
        entries: Its features on each grid; complete when `encoded` of the frames are in.
        encoded: How many frames are encoded.
        error: Why it cannot be read.
        others_differ: Whether the other clips must be decoded themselves, since the file of the
            first one had changed when it was decoded.
    """

    clips: list[Clip]
    key: str
    request: FrameRequest
    content: Content | None = None
    window: int = 1
    steps: int = 1
    frames: Frames | None = None
    precision: str = ""
    entries: list[Entry] = field(default_factory=list)
    encoded: int = 0
    error: InputError | None = None
    others_differ: bool = False

    @property
    def complete(self) -> bool:
        """True when it failed, or all of its frames are encoded."""
        return self.error is not None or (
            self.frames is not None and self.encoded == len(self.frames.times)
        )

    def add(self, first: int, features: list[Features]) -> None:
        """Take over features of some frames.

        Args:
            first: Number of the first of these frames.
            features: ``float16 [n, D, g, g]`` on each grid: one step for each of the frames, or
                those of whole windows.
        """
        frames = self.frames
        assert frames is not None
        if not self.entries:
            info = EntryInfo(
                start=frames.start,
                end=frames.end,
                count=frames.count,
                width=frames.width,
                height=frames.height,
                decoder=frames.decoder,
                mode=f"{self.precision} channels_last",
                path=self.request.path,
                warnings=frames.warnings,
            )
            # A step stands for its share of a window, and has the time of the frame amid it.
            middle = ((np.arange(self.steps) + 0.5) * self.window / self.steps).astype(int)
            times = frames.times.reshape(-1, self.window)[:, middle].ravel()
            blank = [np.empty((len(times), *each.shape[1:]), np.float16) for each in features]
            self.entries = [Entry(array, times, info) for array in blank]
        first = first // self.window * self.steps
        for entry, part in zip(self.entries, features, strict=True):
            entry.features[first : first + len(part)] = part
        self.encoded += len(features[0]) // self.steps * self.window
        if self.complete:
            if frames.repeats is not None:  # of an encoder of single frames
                self.entries = [
                    Entry(
                        np.repeat(entry.features, frames.repeats, axis=0),
                        np.repeat(entry.times, frames.repeats),
                        entry.info,
                    )
                    for entry in self.entries
                ]
            try:
                for entry in self.entries:
                    check_finite(entry.features, self.request.path)
            except InputError as error:
                self.error = error


def check_finite(features: Features, path: str) -> None:
    """Refuse features that no head can read.

    Raises:
        InputError: They are not finite, or were too large for float16.
    """
    if not np.isfinite(features).all():
        raise InputError(
            path,
            "its features do not fit float16 (or are not finite)",
            "Are the weights sound? Choose another --layer or other --weights.",
        )


Share = tuple[Job, int, int]
"""Frames of a job in a batch: the job, the number of the first of them, and how many there are."""
Batch = tuple[list[Share], Future[list[Features]]]


@dataclass(eq=False)
class Encoder:
    """A backbone that is loaded when something has to be computed, for all runs of a command.

    Attributes:
        load_engine: Builds the engine.
        choice: Numerical precision of the last run, and why.
    """

    load_engine: Callable[[], TorchEngine]
    choice: PrecisionChoice | None = None

    @cached_property
    def engine(self) -> TorchEngine:
        """The engine, loaded when it is first asked for."""
        return self.load_engine()

    def begin(self, grids: Sequence[Grid], frames: int, *, many: bool) -> Encoding:
        """Begin a run of jobs.

        Args:
            grids: Sides of the maps that are wanted.
            frames: How many will come at most: few are divided among the streams.
            many: Whether there are so many clips that a calibration of the precision pays.
        """
        streams, window = self.engine.streams, self.engine.window
        batch = min(self.engine.batch, math.ceil(frames / streams))
        return Encoding(
            encoder=self,
            grids=grids,
            many=many,
            batch=max(1, batch // window) * window,  # windows are not cut
            threads=ThreadPoolExecutor(streams, "forward", self.engine.begin_thread),
            others=self.engine.count_threads(),
        )


@dataclass(eq=False)
class Encoding:
    """A run of jobs through an engine, in batches that span them.

    Attributes:
        encoder: Has the engine.
        grids: Sides of the maps that are wanted.
        many: Whether there are so many clips that a calibration of the precision pays.
        batch: Frames in a forward pass.
        threads: Run the streams.
        others: How many threads torch computes with outside of them.
        choice: Numerical precision, once there were frames.
    """

    encoder: Encoder
    grids: Sequence[Grid]
    many: bool
    batch: int
    threads: ThreadPoolExecutor
    others: int
    choice: PrecisionChoice | None = None
    _jobs: deque[Job] = field(default_factory=deque)  # not complete, in the order they came
    _shares: list[Share] = field(default_factory=list)  # of the batch that is being filled
    _parts: list[Pixels] = field(default_factory=list)  # their frames
    _pending: deque[Batch] = field(default_factory=deque)  # batches under way

    @property
    def idle(self) -> bool:
        """True while a stream waits for frames."""
        return sum(not future.done() for _, future in self._pending) < self.encoder.engine.streams

    def add(self, job: Job) -> list[Job]:
        """Take over a decoded job; waits while too many batches are under way.

        Returns:
            Jobs that are complete by now, in the order in which they came.

        Raises:
            UserError: Features in the precision that was asked for do not agree with fp32, or the
                device has too little memory for a single frame, or the encoder gives another number
                of steps than its description says.
        """
        self._jobs.append(job)
        if job.error is None:
            assert job.frames is not None
            pixels = job.frames.pixels
            job.frames = replace(job.frames, pixels=pixels[:0].copy())  # batches let go of them
            if self.choice is None:
                first, choose = pixels[: self.batch], self.encoder.engine.choose
                self.choice = self.threads.submit(choose, first, self.many).result()
                self.encoder.choice = self.choice
            job.precision = self.choice.precision
            start = 0
            while start < len(pixels):
                part = pixels[start : start + self.batch - sum(map(len, self._parts))]
                self._shares.append((job, start, len(part)))
                self._parts.append(part)
                start += len(part)
                if sum(map(len, self._parts)) == self.batch:
                    self._submit()
        return self._take(BATCHES_AHEAD * self.encoder.engine.streams)

    def flush(self) -> list[Job]:
        """Wait for all jobs that were added; returns those that were not returned before."""
        if self._shares:
            self._submit()
        return self._take(0)

    def end(self) -> None:
        """End the run; what is not encoded yet is dropped."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._jobs.clear()
        self._shares, self._parts = [], []
        self._pending.clear()
        # Threads that begin later would take over that those of the streams have one each.
        self.encoder.engine.set_threads(self.others)

    def _submit(self) -> None:
        """Have the batch computed that was filled."""
        assert self.choice is not None
        shares, parts = self._shares, self._parts
        self._shares, self._parts = [], []
        features, precision = self.encoder.engine.features, self.choice.precision
        work = self.threads.submit(features, parts, precision, self.grids)
        self._pending.append((shares, work))

    def _take(self, most: int) -> list[Job]:
        """Hand out what was computed, until at most so many batches are under way."""
        while self._pending and (len(self._pending) >= max(most, 1) or self._pending[0][1].done()):
            shares, work = self._pending.popleft()
            features, begin = work.result(), 0
            expected = sum(count // job.window * job.steps for job, _, count in shares)
            if len(features[0]) != expected:
                raise UserError(
                    f"the encoder gives {len(features[0])} steps in time where its description "
                    f"says {expected}",
                    "Choose its own --layer; the package that it comes from must mend `steps`.",
                )
            for job, first, count in shares:
                end = begin + count // job.window * job.steps
                job.add(first, [each[begin:end] for each in features])
                begin = end
        complete = []
        while self._jobs and self._jobs[0].complete:
            complete.append(self._jobs.popleft())
        return complete
