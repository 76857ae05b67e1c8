"""Live video: samples of a stream as they come, however often its connection breaks.

A connection is a child process (`live_worker`) that reads the source and keeps a few samples; those
that nobody fetches in time give way to newer ones. So a decoder that crashes or hangs, a server
that is silent and a cable that is pulled are one thing: the process ends and another one begins.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from vidfuse.errors import InputError, UserError
from vidfuse.machine import memory_share
from vidfuse.progress import Reporter
from vidfuse.rpc import Answer, Child, ChildEndedError, Order
from vidfuse.video import Crop, Interpolation
from vidfuse.video.frames import Pixels

PIPE = "pipe:"
NETWORK = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
DEVICES = ("v4l2", "avfoundation", "dshow")  # of Linux, macOS and Windows, as FFmpeg calls them
FORMS = "rtsp://…, http://…, udp://…, /dev/video0, avfoundation:0, dshow:video=NAME, or pipe:"
FROM_THE_FRONT = "Send what is read from the front: ffmpeg -i VIDEO -f mpegts - | vidfuse …"
INDEX_FIRST = (
    "If other programs play it, its index is at its end: ffmpeg -i VIDEO -c copy -movflags "
    "+faststart OUT.mp4 puts it in front. Or download it: vidfuse predict FILE --timeline"
)
WAIT_SECONDS = 0.5  # for samples, before the worker says that there are none
STUCK_SECONDS = 10.0  # beyond that: a worker that does not answer hangs
TIMEOUT_SECONDS = 10.0  # in which a network must give something, less where patience is less
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds before connecting again
HELD_BYTES = 2**26  # of samples that wait, at most


@dataclass(frozen=True, slots=True)
class LiveSource:
    """The source of a stream.

    Attributes:
        name: As it is shown: without a password.
        address: For FFmpeg; of a pipe empty.
        format: FFmpeg's name of the device; None is a URL or a pipe.
    """

    name: str
    address: str
    format: str | None = None

    @property
    def is_pipe(self) -> bool:
        """True for standard input, which waits for us, ends once and cannot be opened again."""
        return not self.address


def find_source(text: str) -> LiveSource:
    """The source that ``--live`` names.

    Raises:
        UserError: It is no live source.
    """
    scheme, colon, rest = text.partition(":")
    if text == PIPE:
        if sys.platform == "win32":
            raise UserError("--live pipe: is not for Windows", "Serve it, as with: tcp://…")
        return LiveSource(text, "")
    if scheme.lower() in NETWORK and rest.startswith("//"):
        return LiveSource(re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", text), text)
    if colon and rest and scheme in DEVICES:
        return LiveSource(text, rest, scheme)
    try:
        kind = os.stat(text).st_mode
    except (OSError, ValueError):
        kind = 0
    if stat.S_ISCHR(kind) and sys.platform == "linux":
        return LiveSource(text, text, "v4l2")
    if text == "-":
        raise UserError(
            "--live -: it takes bytes on standard input as pipe:",
            "Leave out --live, or: … | vidfuse predict --live pipe:",
        )
    if text.startswith("-"):
        raise UserError(f"--live needs a source, and {text} is none", f"Known are {FORMS}")
    if kind:
        what = "folder" if stat.S_ISDIR(kind) else "file"
        raise UserError(
            f"--live {text}: that is a {what}, and --live is for what has no end",
            f"Read it as it is: vidfuse predict {text} --timeline, or send it through pipe:",
        )
    if text.startswith("/dev/"):
        raise UserError(f"--live {text}: no such device", "Cameras there: ls /dev/video*")
    if text and not re.match(r"\w+:", text):
        raise UserError(f"--live {text}: no such file or device", f"Known are {FORMS}")
    raise UserError(f"--live {text}: not a live source", f"Known are {FORMS}")


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A request for a stream.

    Attributes:
        rate: Samples per second: the frames on screen at the `even_moments`.
        gap: Seconds; behind a longer one, and behind a step back in time, another run begins.
        hold: How many samples wait at most until they are fetched.
        size: Side of the square frames, in pixels.
        crop: Way to make a frame a square; see `vidfuse.video.frames.square`.
        interpolation: How frames are resized.
        crop_fraction: Share of the short side that the square of ``center`` covers.
    """

    rate: float
    gap: float
    hold: int
    size: int
    crop: Crop = "center"
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0


class Sample(NamedTuple):
    """A frame that was chosen.

    Attributes:
        run: Number of the run that it belongs to: samples of one run follow each other in time.
        number: Of the first moment at which it is on screen; numbers go on within a run, but for
            samples that were dropped.
        moments: At how many it is.
        time: When it is shown, in seconds from the first frame of the stream. Where a connection
            broke, time goes on by the clock.
        arrived: When it came, by `time.monotonic`.
        pixels: ``uint8 [size, size, 3]``, RGB.
    """

    run: int
    number: int
    moments: int
    time: float
    arrived: float
    pixels: Pixels


class Ending(NamedTuple):
    """The end of a connection.

    Attributes:
        reason: Why, in words; empty where it came to its end.
        finished: Whether that was the end of the stream.
    """

    reason: str
    finished: bool


class LiveStream:
    """A live source that is connected again until nothing comes for too long.

    Args:
        source: Where it comes from.
        request: What is wanted of it.
        patience: Seconds without a frame after which it is given up.
        memory: Bytes that reading it may take; None is a share of the machine's.
        reporter: Receives warnings.

    Attributes:
        dropped: How many samples were dropped so far, since nobody fetched them in time.
    """

    def __init__(
        self,
        source: LiveSource,
        request: LiveRequest,
        *,
        patience: float,
        memory: int | None,
        reporter: Reporter,
    ) -> None:
        self.source = source
        self.patience = patience
        self.dropped = 0
        self.reporter = reporter
        most = max(1, HELD_BYTES // (3 * request.size**2))
        self.request = replace(request, hold=min(request.hold, most))
        self._memory = memory or memory_share(1)
        self._pause = FIRST_PAUSE
        self._lost = ""  # why, as it was told
        self._damaged = False
        self._gaps: set[bool] = set()  # told of: gaps, and steps back in time
        self._run = -1
        self._last: Sample | None = None
        self._seen = 0.0

    def batches(self) -> Generator[list[Sample], None, None]:
        """Samples, a few at a time as they come, until the stream ends.

        Raises:
            InputError: Nothing came for too long, or it ended and nothing of it could be read.
        """
        self._seen = time.monotonic()
        while True:
            ending = yield from self._connection()
            if ending.finished and self._last is None:
                reason = ending.reason or "it ends before its first sample"
                hint = FROM_THE_FRONT if self.source.is_pipe else INDEX_FIRST
                raise InputError(self.source.name, reason, hint)
            if ending.finished:
                if ending.reason:
                    self.reporter.warn(f"{self.source.name}: {ending.reason}")
                return
            left = self._seen + self.patience - time.monotonic()
            if left <= 0:
                raise self._given_up(ending.reason)
            lost = ending.reason or "the stream ended"
            if lost != self._lost:  # and not each time that connecting fails
                self.reporter.warn(f"{self.source.name}: {lost}; connecting again")
                self._lost = lost
            time.sleep(min(self._pause, left))
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _connection(self) -> Generator[list[Sample], None, Ending]:
        """Samples of one connection; returns how it ended.

        Raises:
            InputError: Nothing came for too long.
        """
        number, offset = None, None  # of the worker's run, and of its time
        damaged = dropped = 0
        files = [os.dup(0)] if self.source.is_pipe else []
        process = Child("vidfuse.video.live_worker:main", [str(self._memory)], files)
        try:
            process.ask(self._order(files), TIMEOUT_SECONDS + STUCK_SECONDS)
            while True:
                answer, payload = process.ask(
                    {"op": "next", "wait": WAIT_SECONDS}, WAIT_SECONDS + STUCK_SECONDS
                )
                samples: list[Sample] = []
                for sample in _samples_of(answer, payload, self.request.size):
                    offset = self._offset(sample) if offset is None else offset
                    sample = sample._replace(time=sample.time + offset)
                    if number is not None and sample.run != number:
                        self._warn_of_gap(samples[-1] if samples else self._last, sample)
                    self._run += sample.run != number
                    number = sample.run
                    samples.append(sample._replace(run=self._run))
                self._warn_of_loss(answer["damaged"] - damaged, answer["dropped"] - dropped)
                damaged, dropped = answer["damaged"], answer["dropped"]
                if samples:
                    self._last, self._lost, self._pause = samples[-1], "", FIRST_PAUSE
                    yield samples
                    self._seen = time.monotonic()
                if answer["ended"] is not None:
                    return Ending(*answer["ended"])
                if time.monotonic() - self._seen > self.patience:
                    raise self._given_up("")
        except ChildEndedError as error:
            return Ending(f"its reader {error}", finished=self.source.is_pipe)
        finally:
            process.close()
            for file in files:
                os.close(file)

    def _order(self, files: list[int]) -> Order:
        """The first order of a worker."""
        return {
            "op": "open",
            "source": asdict(self.source),
            "file": next(iter(files), None),
            "timeout": min(TIMEOUT_SECONDS, self.patience),
            "request": asdict(self.request),
        }

    def _offset(self, first: Sample) -> float:
        """The seconds to add to the time of a connection, whose first sample this is."""
        if self._last is None:
            return 0.0
        return self._last.time + first.arrived - self._last.arrived - first.time

    def _warn_of_loss(self, damaged: int, dropped: int) -> None:
        """Warn of what was lost, the first time."""
        name = self.source.name
        if dropped and not self.dropped:
            self.reporter.warn(f"{name}: this machine cannot keep up, so some frames are left out")
        if damaged and not self._damaged:
            self.reporter.warn(f"{name}: some of what comes is damaged")
        self.dropped += dropped
        self._damaged |= damaged > 0

    def _warn_of_gap(self, before: Sample | None, after: Sample) -> None:
        """Warn of what makes two runs of one connection, the first time."""
        gap = before is not None and after.time - before.time > self.request.gap
        if gap in self._gaps:
            return
        self._gaps.add(gap)
        why = f"its time steps back at {after.time:.1f} s"
        if gap and before is not None:
            why = f"no frame from {before.time:.1f} to {after.time:.1f} s"
        self.reporter.warn(f"{self.source.name}: {why}, so a new window begins")

    def _given_up(self, reason: str) -> InputError:
        return InputError(
            self.source.name,
            f"no frame for {self.patience:g} s" + f" ({reason})" * bool(reason),
            "Check the source, and that another program plays it; --patience waits longer.",
        )


def _samples_of(answer: Answer, payload: bytes, size: int) -> Iterator[Sample]:
    """The samples that a worker answered."""
    pixels = np.frombuffer(payload, np.uint8).reshape(-1, size, size, 3)
    for (run, number, moments, shown, arrived), each in zip(answer["samples"], pixels, strict=True):
        yield Sample(run, number, moments, shown, arrived, each)
