"""Reading videos with PyAV (FFmpeg's libraries), the decoder that ``auto`` means.

Where the container says of every frame when it is shown (H.264, HEVC, VP9 and AV1 in MP4 and
Matroska), only what the wanted ones need is decoded: from the key frame before each, in H.264
without the frames on the way that no other depends on. Other short clips are decoded once from
beginning to end, and the decoded frames are kept until the wanted ones are known: each frame's
timestamp is the decoder's own. Other long ones are read through the container's index too, with all
frames on the way (AVI where the clip is kept open). Far behind a key frame, a long clip that is
kept open is read on from where the last call ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property

import av
import numpy as np
from av.video.frame import VideoFrame

from vidfuse.errors import InputError
from vidfuse.video.decoder import Fit, end_of, unchanged
from vidfuse.video.frames import Pixels
from vidfuse.video.pyav_index import Index, list_avi_frames, read_index
from vidfuse.video.pyav_stream import (
    KeyFrame,
    SeekError,
    VideoFile,
    bytes_of,
    is_mirrored,
    is_turned,
)
from vidfuse.video.sampling import EPSILON, FrameTimes, Times, on_screen

# Decoded frames of a clip are kept up to this many bytes (a minute of 320x240 is 200 MB).
KEEP_BYTES = 2**28
SMALLEST_FOR_DECORD = 16  # pixels
FAR = 10.0  # seconds behind a key frame: more than to decode from it again for each call
NOTHING = "no frame in it can be decoded"


class PyAVReader:
    """One open video file; see ``Reader``.

    Args:
        path: The file.
        frame_times: Changes nothing: it finds its own.
        again: True where more will be asked of the clip after the first frames. A short one is then
            decoded as a whole at once and kept.
        keep_bytes: Most bytes that decoded frames of a short clip take.

    Raises:
        InputError: The file is missing, empty, or holds no video stream.
    """

    name = "pyav"

    def __init__(
        self,
        path: str,
        frame_times: FrameTimes | None = None,
        again: bool = False,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.path = path
        self._file = VideoFile(path)
        self._short = self._file.expected_bytes <= keep_bytes
        self._keep_bytes = keep_bytes
        self._again = again
        self._by_index = self._file.indexed and not again
        self._index: Index | None = None
        self._kept: tuple[Times, list[VideoFrame]] | None = None
        self._walk: Walk | None = None

    @property
    def warnings(self) -> list[str]:
        """Problems so far that were not fatal."""
        damaged = len(self._file.damaged)
        return self._file.notes + ([f"damaged packets skipped: {damaged}"] if damaged else [])

    @property
    def decoded(self) -> int:
        """Number of frames that were decoded so far."""
        return self._file.decoded

    @cached_property
    def frame_times(self) -> FrameTimes:
        """Presentation times of all frames, from the decoder where a short clip needs it."""
        found = self.index() if self._by_index or not self._short else self._decode_all()
        if self._short and self._index and self._index.doubtful:
            found = self._decode_instead()
        return self._checked(found)

    def _checked(self, found: FrameTimes) -> FrameTimes:
        missing = self._file.cut_off(len(found.times), found.end)
        if missing and missing not in self._file.notes:
            self._file.notes.append(missing)
        return found

    def index(self) -> FrameTimes:
        """The frame times as the container states them, by decoding only where it states none."""
        # Of AVI it may count a packet in which there is no frame: good enough for moments alone.
        if self._file.decode_timed and self._again and not self._short:
            self._index = list_avi_frames(self._file)
        else:
            self._index = read_index(self._file)
        return self._index.frame_times if self._index else self._decode_instead()

    def _decode_instead(self) -> FrameTimes:
        """The container's index is of no use."""
        self._index = None
        self._file.restart()
        self._file.damaged.clear()
        return self._decode_all()

    def _decode_all(self) -> FrameTimes:
        """Decode from the beginning; keep the frames unless they outgrow the memory for them."""
        times: list[float] = []
        kept: list[VideoFrame] | None = []
        size = 0
        frame = None
        for time, frame in self._file.frames():
            times.append(time)
            if kept is not None:
                size += bytes_of(frame)
                kept.append(frame)
                if size > self._keep_bytes:  # more than the file says
                    kept, self._short = None, False
        if frame is None:
            raise InputError(self.path, NOTHING)
        ordered = np.maximum.accumulate(np.array(times))
        self._kept = None if kept is None else (ordered, kept)
        duration = frame.duration * self._file.tick if frame.duration else None
        return FrameTimes(ordered, end_of(ordered, duration))

    def obstacle(self, backend: str) -> str | None:
        """The reason why another backend must not read this file; None where it may.

        Such backends were seen to return wrong frames of files of this kind.

        Args:
            backend: ``decord``, ``torchcodec``, or the name of one of their variants.
        """
        self._file.restart()
        _, frame = next(self._file.frames(), (0.0, None))
        if backend.startswith("torchcodec"):
            return self._obstacle_for_torchcodec(frame)
        if "mpegts" in self._file.container.format.name:
            return "it loses the first frames of transport streams"
        if frame is not None and is_turned(frame):
            return "it does not turn or mirror frames in every container"
        if frame is not None and min(frame.width, frame.height) < SMALLEST_FOR_DECORD:
            return f"frames of {frame.width}x{frame.height} are too small for it"
        return None

    def _obstacle_for_torchcodec(self, frame: VideoFrame | None) -> str | None:
        if frame is not None and is_mirrored(frame):
            return "it does not mirror frames"
        if self._file.decode_timed and self._file.stream.codec_context.has_b_frames:
            return "it mistakes the order of B-frames in AVI files"
        return None

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pixels], Times]:
        """The frames on screen at ``times`` (not decreasing), and their presentation times.

        Where the index of a short clip proves wrong, `frame_times` is another one afterwards.
        """
        times = np.maximum(times, self.frame_times.times[0])
        if self._index and self._index.keys:
            try:
                if self._again and (key := _far_key(self._index, times)):
                    return _together(self._onward(times, fit, key))
                return self._through(self._index, times, fit)
            except MemoryError:  # FFmpeg's, too
                raise
            except (SeekError, av.error.FFmpegError):  # the slow way is still right
                self._index = self._walk = None
                if not self._short:
                    text = "seeking in it fails, so it was read from the beginning"
                    self._file.notes.append(text)
        if self._short and self._kept is None:
            self.frame_times = self._checked(self._decode_instead())
        if self._kept is None:
            return _together(self._onward(times, fit))
        shown, kept = self._kept
        indices = on_screen(shown, times)
        pixels = {int(i): fit(self._file.to_rgb(kept[i])) for i in np.unique(indices)}
        return [pixels[int(i)] for i in indices], shown[indices]

    def _through(self, index: Index, times: Times, fit: Fit) -> tuple[list[Pixels], Times]:
        """Answer each time from a key frame before it.

        Raises:
            SeekError: The index is wrong, or a packet of a short clip does not decode.
        """
        self._walk = None  # from where seeking leads away
        frame_of = on_screen(index.frame_times.times, times)
        moments = index.frame_times.times[frame_of]
        wanted = frozenset(index.stamps[frame_of].tolist())
        found: list[tuple[Pixels, float]] = []
        for key, frames in index.parts(np.unique(frame_of)):
            part = moments[np.isin(frame_of, frames)]
            self._file.seek(key)
            try:
                needs = wanted if self._file.indexed else None
                found += list(self._pass_by(part, fit, needs))
            except SeekError:
                if self._short or not self._file.indexed:
                    raise
                self._file.seek(key)
                found += list(self._pass_by(part, fit))
        if self._short and self._file.damaged:
            raise SeekError
        return _together(found)

    def _onward(
        self, times: Times, fit: Fit, key: KeyFrame | None = None
    ) -> Iterator[tuple[Pixels, float]]:
        """The frame on screen at each time, on the way from where the last call ended.

        Args:
            times: Moments asked for, not decreasing.
            fit: Called for each frame.
            key: Where the way begins, if not there; None is the beginning of the file.

        Raises:
            InputError: No frame can be decoded.
            SeekError: The index is wrong.
        """
        begin = -np.inf if key is None else key.time - EPSILON
        if self._walk is None or not begin <= self._walk.time <= times[0] + EPSILON:
            self._walk = None
            if key is None:
                self._file.restart()
                self._walk = Walk(self._file)
            else:
                self._walk = self._walk_from(key, times[0])
        image: Pixels | None = None
        for moment in times.tolist():
            if self._walk.reach(moment) or image is None:
                image = fit(self._file.to_rgb(self._walk.frame))
            yield image, self._walk.time

    def _walk_from(self, key: KeyFrame, time: float) -> Walk:
        """A walk from a key frame, on the way to a time in seconds.

        Raises:
            SeekError: It does not lead there.
        """
        self._file.seek(key)
        try:
            walk = Walk(self._file)
        except InputError as error:
            raise SeekError from error
        if walk.time > time + EPSILON or not self._begins(walk.frame):
            raise SeekError
        return walk

    def _pass_by(
        self,
        times: Times,
        fit: Fit,
        wanted: frozenset[int] | None = None,
    ) -> Iterator[tuple[Pixels, float]]:
        """Walk through the frames behind a seek and give the one on screen at each time.

        Args:
            times: Moments asked for, not decreasing.
            fit: Called for each frame.
            wanted: Presentation times of the frames of these moments, in the stream's ticks. What
                they do not need may be left out, and each must come. None leaves out nothing, and
                a frame that does not come leaves the one before it on screen.

        Raises:
            SeekError: The walk starts later than the first moment; a wanted frame, or any at all,
                does not come; or a frame of a short clip has holes.
        """
        shown: tuple[float, VideoFrame] | None = None
        image: Pixels | None = None
        waiting = deque(times.tolist())

        def on_screen_now() -> Pixels:
            assert shown is not None
            time, frame = shown
            if wanted is not None and time + EPSILON < waiting[0]:
                raise SeekError
            return fit(self._file.to_rgb(frame)) if image is None else image

        for time, frame in self._file.frames(wanted):
            if shown is None and (time > times[0] + EPSILON or not self._begins(frame)):
                raise SeekError
            # How the decoder fills holes depends on all that it has decoded.
            if wanted is not None and self._short and frame.is_corrupt:
                raise SeekError
            while shown is not None and waiting and waiting[0] + EPSILON < time:
                image = on_screen_now()
                yield image, shown[0]
                waiting.popleft()
            if not waiting:
                return
            shown, image = (time, frame), None
        if shown is None:
            raise SeekError
        while waiting:
            image = on_screen_now()
            yield image, shown[0]
            waiting.popleft()

    def _begins(self, frame: VideoFrame) -> bool:
        """False for the first frame behind a seek that needs others, though AVI lists it as a key
        frame: without a whole index, some packets are taken for what they are not.
        """
        return frame.key_frame or not self._file.decode_timed

    def close(self) -> None:
        """Release the file and the frames kept of it."""
        self._kept = self._walk = None
        self._file.close()


class Walk:
    """A walk through all frames of a file, from its beginning.

    Args:
        file: Just opened.

    Attributes:
        time: When the frame on screen was shown, in seconds.
        frame: That frame.

    Raises:
        InputError: No frame can be decoded.
    """

    def __init__(self, file: VideoFile) -> None:
        self._frames = file.frames()
        first = next(self._frames, None)
        if first is None:  # nothing that was listed can be decoded
            raise InputError(file.path, NOTHING)
        self.time, self.frame = first
        self._next = next(self._frames, None)

    def reach(self, moment: float) -> bool:
        """Go on to the frame on screen at a moment, in seconds; False where it is the same."""
        moved = False
        while self._next is not None and self._next[0] <= moment + EPSILON:
            self.time, self.frame = self._next
            self._next = next(self._frames, None)
            moved = True
        return moved


def _far_key(index: Index, times: Times) -> KeyFrame | None:
    """The key frame that the first of some times is decoded from, where it is far before."""
    first = on_screen(index.frame_times.times, times[:1])
    ((key, _),) = index.parts(first)
    return key if times[0] > key.time + FAR else None


def _together(found: Iterable[tuple[Pixels, float]]) -> tuple[list[Pixels], Times]:
    pixels, times = zip(*found, strict=True)
    return list(pixels), np.array(times)
