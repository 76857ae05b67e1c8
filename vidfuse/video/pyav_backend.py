"""Reading videos with PyAV (FFmpeg's libraries), the decoder that ``auto`` means.

Short clips are decoded once from beginning to end, and the decoded pictures are kept until the
wanted ones are known: no seek can go wrong, and each picture's timestamp is the decoder's own.
Long ones take their timeline from the container's index and seek to the key frame before each
wanted picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidfuse.errors import InputError
from vidfuse.video.decoder import check_size, end_of
from vidfuse.video.frames import Pictures
from vidfuse.video.sampling import EPSILON, Timeline, Times, on_screen

# Decoded pictures of a clip are kept up to this many bytes (a minute of 320x240 is 200 MB).
KEEP_BYTES = 2**28
MAX_SKIPPED = 1000  # damaged packets in one file after which reading it stops


class PyAVReader:
    """One open video file; see ``Reader``.

    Raises:
        InputError: The file is missing, empty, or holds no video stream.
    """

    name = "pyav"

    def __init__(
        self, path: str, timeline: Timeline | None = None, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self.path = path
        self.keep_bytes = keep_bytes
        self._notes: list[str] = []
        self._damaged: set[int | None] = set()  # positions of packets that do not decode
        self._kept: list[VideoFrame] | None = None
        self._keys: list[tuple[float, int]] = []
        self._open()

    def _open(self) -> None:
        try:
            self.container: InputContainer = av.open(
                self.path, metadata_errors="ignore", options={"protocol_whitelist": "file"}
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(
                self.path, f"not a video that can be opened ({_reason(error)})"
            ) from error
        self.stream = self._video_stream()
        self.stream.thread_type = "SLICE"  # one clip, one core: clips run side by side
        self.stream.codec_context.thread_count = 1
        # AVI stores no presentation times and what is derived from its packets is wrong for packed
        # B-frames: pictures come out in the order and at the times at which they are decoded.
        self.unreliable_pts = self.container.format.name == "avi"
        self.origin = (self.container.start_time or 0) / av.time_base
        self.tick = float(self.stream.time_base or 1)
        self.frame_time = 1 / float(self.stream.average_rate or self.stream.guessed_rate or 25)

    def _video_stream(self) -> VideoStream:
        stream = self.container.streams.best("video")
        if not isinstance(stream, VideoStream):
            kinds = sorted({stream.type for stream in self.container.streams})
            raise InputError(self.path, f"no video in it (only {', '.join(kinds) or 'no streams'})")
        if stream.disposition & av.stream.Disposition.attached_pic:
            raise InputError(self.path, "no video in it (only sound with a cover picture)")
        if stream.codec_context is None:
            raise InputError(self.path, "its video codec is not known to the installed PyAV")
        check_size(self.path, stream.codec_context.width, stream.codec_context.height)
        return stream

    @cached_property
    def timeline(self) -> Timeline:
        """Presentation times of all pictures, from the decoder where the clip is short."""
        return self.index() if self._expected_bytes() > self.keep_bytes else self._decode_all()

    def _expected_bytes(self) -> float:
        context = self.stream.codec_context
        seconds = (self.container.duration or 0) / av.time_base
        return max(self.stream.frames, seconds / self.frame_time) * context.width * context.height

    def _decode_all(self) -> Timeline:
        """Decode from the beginning; keep the pictures unless they outgrow the memory for them."""
        times: list[float] = []
        kept: list[VideoFrame] | None = []
        size = 0
        frame = None
        for time, frame in self._decode():
            times.append(time)
            if kept is not None:
                size += sum(plane.buffer_size for plane in frame.planes)
                kept.append(frame)
                if size > self.keep_bytes:
                    kept = None
        if frame is None:
            raise InputError(self.path, "no picture in it can be decoded")
        self._kept = kept
        ordered = np.maximum.accumulate(np.array(times))
        duration = frame.duration * self.tick if frame.duration else None
        return Timeline(ordered, end_of(ordered, duration))

    def index(self) -> Timeline:
        """The timeline as the container states it, by decoding only where it states none."""
        if self.unreliable_pts:
            return self._decode_all()
        found: list[float] = []
        last: tuple[float, float | None] = (-np.inf, None)
        for packet in self._demux():
            if packet.pts is None or not packet.size:
                continue
            time = packet.pts * self.tick - self.origin
            if packet.is_keyframe and packet.dts is not None:
                self._keys.append((time, packet.dts))
            if packet.is_discard:  # needed to decode the others, never shown
                continue
            found.append(time)
            last = max(last, (time, packet.duration * self.tick if packet.duration else None))
        if not found:
            return self._decode_all()
        self._keys.sort()
        times = np.unique(np.array(found))
        return Timeline(times, end_of(times, last[1]))

    def read(self, times: Times) -> tuple[list[Pictures], Times]:
        """The pictures on screen at ``times`` (not decreasing), and their presentation times."""
        timeline = self.timeline
        times = np.maximum(times, timeline.times[0])
        if self._kept is not None:
            indices = on_screen(timeline.times, times)
            pictures = {int(i): _to_rgb(self._kept[i]) for i in np.unique(indices)}
            return [pictures[int(i)] for i in indices], timeline.times[indices]
        try:
            found = list(self._seek_each(times))
        except (_BadSeekError, av.error.FFmpegError):
            # A container whose index lies: the slow way is still right.
            self._notes.append("seeking in it fails, so it was read from the beginning")
            found = list(self._pass_by(times, self._restart()))
        return [picture for picture, _ in found], np.array([time for _, time in found])

    def _seek_each(self, times: Times) -> Iterator[tuple[Pictures, float]]:
        """Answer each time from the key frame before it, going on where that is nearer."""
        if not self._keys:
            yield from self._pass_by(times, self._restart())
            return
        key_times = np.array([time for time, _ in self._keys])
        key_of = on_screen(key_times, times)
        for key in np.unique(key_of):
            self.container.seek(self._keys[key][1], stream=self.stream)
            decoded = self._decode()
            yield from self._pass_by(times[key_of == key], decoded, not_before=key_times[key])

    def _restart(self) -> Iterator[tuple[float, VideoFrame]]:
        self.close()
        self._open()
        return self._decode()

    def _pass_by(
        self,
        times: Times,
        decoded: Iterator[tuple[float, VideoFrame]],
        not_before: float | None = None,
    ) -> Iterator[tuple[Pictures, float]]:
        """Walk through decoded pictures and give the one on screen at each time.

        Args:
            times: Moments asked for, not decreasing.
            decoded: Pictures with their times.
            not_before: Pictures before this time (leading ones of an open group) are broken.

        Raises:
            _BadSeekError: After a seek, the walk starts later than the first moment; or no
                picture comes at all.
        """
        shown: tuple[float, VideoFrame] | None = None
        picture: Pictures | None = None
        waiting = list(times)
        for time, frame in decoded:
            if not_before is not None and time < not_before - EPSILON:
                continue
            if shown is None and not_before is not None and time > times[0] + EPSILON:
                raise _BadSeekError
            while shown is not None and waiting and waiting[0] + EPSILON < time:
                picture = _to_rgb(shown[1]) if picture is None else picture
                yield picture, shown[0]
                waiting.pop(0)
            if not waiting:
                return
            shown, picture = (time, frame), None
        if shown is None:
            raise _BadSeekError
        picture = _to_rgb(shown[1]) if waiting else None
        for _ in waiting:
            assert picture is not None
            yield picture, shown[0]

    def _demux(self) -> Iterator[Packet]:
        """Packets of the video stream; a torn file ends where it is torn."""
        try:
            yield from self.container.demux(self.stream)
        except (av.error.FFmpegError, OSError) as error:
            self._notes.append(f"reading stopped early ({_reason(error)})")

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far without being fatal."""
        skipped = [f"damaged packets skipped: {len(self._damaged)}"] if self._damaged else []
        return self._notes + skipped

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """Every picture that can be decoded, with its presentation time."""
        previous: float | None = None
        for packet in self._demux():
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._damaged.add(packet.pos)
                if len(self._damaged) > MAX_SKIPPED:
                    break
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                previous = self._time(frame, previous)
                yield previous, frame

    def _time(self, frame: VideoFrame, previous: float | None) -> float:
        stamp = frame.dts if self.unreliable_pts or frame.pts is None else frame.pts
        if stamp is not None:
            return stamp * self.tick - self.origin
        return 0.0 if previous is None else previous + self.frame_time

    def close(self) -> None:
        """Release the file and the pictures kept of it."""
        self._kept = None
        self.container.close()


class _BadSeekError(Exception):
    """A seek did not land on the key frame that the index names."""


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0][:120]


def _to_rgb(frame: VideoFrame) -> Pictures:
    """``[H, W, 3]`` RGB, turned and mirrored as the stream's display matrix says."""
    picture = cast(Pictures, frame.to_ndarray(format="rgb24"))
    matrix = cast(Any, frame.side_data).get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return picture
    # x' = a x + c y and y' = b x + d y (ISO/IEC 14496-12, 8.2.2); only right angles are applied.
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2]
    across, down = (a, d) if abs(a) >= abs(b) else (c, b)
    if abs(b) > abs(a):
        picture = picture.transpose(1, 0, 2)
    if across < 0:
        picture = picture[:, ::-1]
    if down < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
