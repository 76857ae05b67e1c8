"""The process that reads a live source: one connection, and then it ends.

A thread reads, decodes and chooses frames; orders fetch them. It imports no torch, like the decode
processes (`worker`), and is apart from the program for the same reasons.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from vidfuse.errors import InputError
from vidfuse.machine import keep_memory, limit_memory
from vidfuse.rpc import Answer, Order, begin, serve
from vidfuse.video.decoder import check_size
from vidfuse.video.frames import Fitter
from vidfuse.video.live import DEVICES, NETWORK, LiveRequest, LiveSource, Sample
from vidfuse.video.pyav_stream import (
    CONTAINERS,
    SELF_CONTAINED,
    STEP_BACK,
    VideoFile,
    ffmpeg_reason,
)
from vidfuse.video.sampling import EPSILON

AT_ONCE = 16  # samples of one answer
MOST_ARRIVALS = 1000  # packets whose frames are waited for; more are none that will come
# A server may send a list of addresses (HLS), but nothing may lead to the files of this machine.
PROTOCOLS = (*NETWORK, "crypto", "httpproxy", "rtmpe", "rtmpt", "srtp", "tls")
FORMATS = (*CONTAINERS.split(), "hls", "live_flv", "mpjpeg", "rtp", "rtsp", "sdp", *DEVICES)
OPTIONS = {
    "protocol_whitelist": ",".join(PROTOCOLS),
    "format_whitelist": ",".join(FORMATS),
    "rtsp_flags": "prefer_tcp",  # which loses no packets
}


class Shown(NamedTuple):
    """A frame, when it is shown (in seconds from the first one), for how long as far as it says
    itself, and when it arrived (`time.monotonic`).
    """

    time: float
    length: float
    arrived: float
    frame: VideoFrame


class Chosen(NamedTuple):
    """A frame that is on screen at so many ``moments`` from ``number`` on; see `Sample`."""

    run: int
    number: int
    moments: int
    shown: Shown


class FrameSampler:
    """Chooses the frames on screen at the moments ``(k + 1/2) / rate``, as `Sampling` does.

    Whether a frame is on screen at a moment is known when the next one comes.

    Args:
        rate: Moments per second.
        gap: Seconds; behind a longer one, and behind a step back in time, another run begins.
    """

    def __init__(self, rate: float, gap: float) -> None:
        self.rate, self.gap = rate, gap
        self._shown: Shown | None = None
        self._shift = 0.0  # from the time of the frames to that of the run
        self._run = 0
        self._next = 0  # number of the next moment

    def add(self, frame: Shown) -> Chosen | None:
        """Take the next frame; returns the one before if any moment was its own."""
        before = self._shown
        if before is None:
            self._shift = -frame.time
            self._shown = frame._replace(time=0.0)
            return None
        now = frame.time + self._shift
        step = now - before.time
        if -STEP_BACK <= step <= self.gap:
            now = max(now, before.time)
            chosen = self._until(now)
        else:
            end = self._end_of(before)
            chosen = self._until(end)
            if step < 0:
                self._shift += end - now
                now = end
            self._run += 1
            self._next = self._moments_before(now)
        self._shown = frame._replace(time=now)
        return chosen

    def finish(self) -> Chosen | None:
        """End the stream; returns the last frame if any moment is its own."""
        return self._until(self._end_of(self._shown)) if self._shown else None

    def _end_of(self, last: Shown) -> float:
        """When the last frame of a run leaves the screen; a damaged stream says anything."""
        return last.time + min(max(last.length, 0.0), self.gap)

    def _until(self, end: float) -> Chosen | None:
        """The frame on screen, if there is a moment before the next one at ``end``."""
        number, stop = self._next, self._moments_before(end)
        if self._shown is None or stop <= number:
            return None
        self._next = stop
        return Chosen(self._run, number, stop - number, self._shown)

    def _moments_before(self, end: float) -> int:
        return math.ceil((end - EPSILON) * self.rate - 0.5)


class LiveFile(VideoFile):
    """The video stream of a live source; see `VideoFile`.

    Args:
        source: Where it comes from.
        file: Number of the file to read, of a pipe.
        timeout: Seconds in which something must come.

    Attributes:
        damage: How many packets did not decode so far, or gave frames with holes.
        end: When the last frame so far leaves the screen, in seconds from the start of the stream.
        broken: True where the connection broke before all of a file had come.
        ends: True where it or its server says how long it is, so it is no endless stream.
    """

    def __init__(self, source: LiveSource, file: int | None, timeout: float) -> None:
        self._source, self._file, self._timeout = source, file, timeout
        self.damage, self.end, self.broken = 0, 0.0, False
        super().__init__(source.name)
        self.ends = source.is_pipe or self.container.duration is not None or self._is_file()

    def _is_file(self) -> bool:
        """True where a server says how many bytes there are, and not of a list of addresses."""
        return self.container.format.name in CONTAINERS.split() and self.container.size > 0

    def connect(self) -> InputContainer:
        """The container as FFmpeg opens it."""
        if self._file is not None:
            pipe = os.fdopen(self._file, "rb", buffering=0)
            return av.open(pipe, "r", metadata_errors="ignore", options=SELF_CONTAINED)
        return av.open(
            self._source.address,
            "r",
            format=self._source.format,
            metadata_errors="ignore",
            options=OPTIONS,
            timeout=(self._timeout, self._timeout),
        )

    def arriving(self) -> Iterator[Shown]:
        """Frames as they come; packets that do not decode are left out.

        Raises:
            FFmpegError: The stream broke.
            InputError: A frame is larger than any camera's.
        """
        previous: float | None = None
        arrived: dict[int | None, float] = {}
        for packet in self._until_end():
            now = time.monotonic()
            if packet is not None:
                if len(arrived) >= MOST_ARRIVALS:
                    arrived.clear()
                arrived[packet.pts] = now
            try:
                frames = self.stream.decode(packet)
            except MemoryError:
                raise
            except av.error.FFmpegError:
                self.damage += 1
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                check_size(self.path, frame.width, frame.height)
                self.decoded += 1
                self.damage += frame.is_corrupt
                previous = self.time_of(frame, previous)
                length = (frame.duration or 0) * self.tick or self.frame_time
                self.end = previous + length
                yield Shown(previous, length, arrived.pop(frame.pts, now), frame)

    def _until_end(self) -> Iterator[Packet[Any] | None]:
        """Packets, and None at the end, for which the decoder gives the frames that it still has.

        Raises:
            FFmpegError: The stream broke.
        """
        try:
            yield from (packet for packet in self.container.demux(self.stream) if packet.size)
        except OSError as error:
            if error.errno != errno.EIO:  # as which FFmpeg tells the end of most that HTTP serves
                raise
            self.broken = self._is_file()  # whose end is no error
        yield None


@dataclass
class Connection:
    """Samples on their way from the thread that reads to the one that answers.

    Attributes:
        request: What is wanted.
        waits: Whether the stream waits for us; else the oldest sample gives way to a new one.
        dropped: How many did.
        file: The stream, once it is open.
        ended: Why it ended, and whether that was all of it.
    """

    request: LiveRequest
    waits: bool = False
    dropped: int = 0
    file: LiveFile | None = None
    ended: tuple[str, bool] | None = None
    _samples: deque[Sample] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self, source: LiveSource, file: int | None, timeout: float) -> None:
        """Read a source until it ends; whatever goes wrong is how it ended."""
        reason = ""
        try:
            self.file = LiveFile(source, file, timeout)
            self.waits = self.file.ends
            for sample in self._choose(self.file):
                self._put(sample)
        except Exception as error:  # noqa: BLE001 - as in `worker`
            reason = _reason(error, timeout)
        if not reason and self.file is not None and self.waits:
            reason = self.file.cut_off(self.file.decoded, self.file.end) or ""
            if self.file.broken:
                reason = "the connection broke before the end of the file"
        with self._changed:
            self.ended = reason, self.waits or source.is_pipe
            self._changed.notify_all()

    def _choose(self, file: LiveFile) -> Iterator[Sample]:
        """Samples of a stream, each as soon as it is known.

        Raises:
            InputError: There is no frame in it.
        """
        wanted = self.request
        fit = Fitter(
            wanted.size,
            wanted.crop,
            interpolation=wanted.interpolation,
            crop_fraction=wanted.crop_fraction,
        )
        sampler = FrameSampler(wanted.rate, wanted.gap)
        empty = True
        for shown in file.arriving():
            empty = False
            if chosen := sampler.add(shown):
                yield _sample(chosen, file, fit)
        if empty:
            raise InputError(file.path, "no frame in it can be decoded")
        if chosen := sampler.finish():
            yield _sample(chosen, file, fit)

    def _put(self, sample: Sample) -> None:
        with self._changed:
            while self.waits and len(self._samples) >= self.request.hold:
                self._changed.wait()
            if len(self._samples) >= self.request.hold:
                self._samples.popleft()
                self.dropped += 1
            self._samples.append(sample)
            self._changed.notify_all()

    def take(self, wait: float) -> Answer:
        """The samples that there are, or that come within some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._samples or self.ended, wait)
            taken = [self._samples.popleft() for _ in range(min(AT_ONCE, len(self._samples)))]
            self._changed.notify_all()
            pixels = [sample.pixels.tobytes() for sample in taken]
            return {
                "samples": [sample[:-1] for sample in taken],
                "dropped": self.dropped,
                "damaged": self.file.damage if self.file else 0,
                "ended": None if self._samples else self.ended,
                "payload": b"".join(pixels),
            }


def _sample(chosen: Chosen, file: LiveFile, fit: Fitter) -> Sample:
    run, number, moments, shown = chosen
    pixels = fit(file.to_rgb(shown.frame))
    return Sample(run, number, moments, shown.time, shown.arrived, pixels)


def _reason(error: Exception, timeout: float) -> str:
    """Why a stream cannot be read any further, in words."""
    if isinstance(error, InputError):
        cause = error.__cause__
        return _reason(cause, timeout) if isinstance(cause, Exception) else error.reason
    if isinstance(error, av.error.ExitError):  # of FFmpeg, which we interrupted
        return f"nothing came for {timeout:g} s"
    if isinstance(error, MemoryError):
        return "decoding it takes more memory than it may (--memory)"
    if isinstance(error, (av.error.FFmpegError, OSError)):
        return ffmpeg_reason(error)
    return f"it cannot be decoded ({type(error).__name__})"


class Worker:
    """Carries out orders: ``open`` (the source) and ``next`` (samples)."""

    def __init__(self) -> None:
        self._connection: Connection | None = None

    def answer(self, order: Order) -> Answer:
        """Carry out one order."""
        if order["op"] == "open":
            self._connection = Connection(LiveRequest(**order["request"]))
            values: dict[str, Any] = order["source"]
            arguments = (LiveSource(**values), order["file"], order["timeout"])
            thread = threading.Thread(
                target=self._connection.read, args=arguments, name="live", daemon=True
            )
            thread.start()
            return {}
        assert self._connection is not None
        return self._connection.take(order["wait"])


def main(memory: str) -> None:
    """Serve on standard input and output.

    Args:
        memory: Bytes that reading may take.
    """
    keep_memory()
    channel = begin()
    limit_memory(int(memory))
    serve(Worker().answer, channel)
    with contextlib.suppress(OSError):
        channel.close()
    os._exit(0)  # the thread may wait for a network
