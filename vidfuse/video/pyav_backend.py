"""Reading videos with PyAV (FFmpeg's libraries), the decoder that ``auto`` means.

Short clips are decoded once from beginning to end, and the decoded pictures are kept until the
wanted ones are known: no seek can go wrong, and each picture's timestamp is the decoder's own.
Long ones take their timeline from the container's index and seek to the key frame before each
wanted picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import av
import numpy as np
from av.video.frame import VideoFrame

from vidfuse.errors import InputError
from vidfuse.video.decoder import end_of
from vidfuse.video.frames import Pictures
from vidfuse.video.pyav_stream import KeyFrame, SeekError, VideoFile, is_mirrored, is_turned
from vidfuse.video.sampling import EPSILON, Timeline, Times, on_screen

# Decoded pictures of a clip are kept up to this many bytes (a minute of 320x240 is 200 MB).
KEEP_BYTES = 2**28
SMALLEST_FOR_DECORD = 16  # pixels


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
        self._kept: list[VideoFrame] | None = None
        self._keys: list[KeyFrame] = []
        self._file = VideoFile(path)

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far without being fatal."""
        damaged = len(self._file.damaged)
        return self._file.notes + ([f"damaged packets skipped: {damaged}"] if damaged else [])

    @property
    def decoded(self) -> int:
        """How many pictures were decoded so far."""
        return self._file.decoded

    @cached_property
    def timeline(self) -> Timeline:
        """Presentation times of all pictures, from the decoder where the clip is short."""
        long = self._file.expected_bytes > self.keep_bytes
        found = self.index() if long else self._decode_all()
        missing = self._file.cut_off(len(found.times), found.end)
        self._file.notes += [missing] if missing else []
        return found

    def _decode_all(self) -> Timeline:
        """Decode from the beginning; keep the pictures unless they outgrow the memory for them."""
        times: list[float] = []
        kept: list[VideoFrame] | None = []
        size = 0
        frame = None
        for time, frame in self._file.pictures():
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
        duration = frame.duration * self._file.tick if frame.duration else None
        return Timeline(ordered, end_of(ordered, duration))

    def index(self) -> Timeline:
        """The timeline as the container states it, by decoding only where it states none."""
        file = self._file
        found: list[tuple[float, float | None]] = []
        keys: list[KeyFrame] = []
        for packet in [] if file.decode_timed else file.packets():
            if packet.pts is None or not packet.size:
                continue
            time = file.seconds(packet.pts)
            if packet.is_keyframe:
                dts = packet.pts if packet.dts is None else packet.dts
                keys.append(KeyFrame(time, packet.pts, dts))
            if not packet.is_discard:  # else it is needed to decode the others, never shown
                found.append((time, packet.duration * file.tick if packet.duration else None))
        keys.sort()
        if keys:  # nothing before the first key frame can be decoded
            found = [picture for picture in found if picture[0] > keys[0].time - EPSILON]
        # In a file of several recordings the container finds only what is in the first.
        self._keys = [] if file.joined else keys
        self._restart()
        if not found:
            return self._decode_all()
        found.sort(key=lambda picture: picture[0])
        times = np.array([time for time, _ in found])
        return Timeline(times, end_of(times, found[-1][1]))

    def obstacle(self, backend: str) -> str | None:
        """Why another backend, seen to return wrong pictures of such files, must not read this one.

        Args:
            backend: ``decord``, ``torchcodec``, or the name of one of their variants.
        """
        self._restart()
        _, frame = next(self._file.pictures(), (0.0, None))
        if backend.startswith("torchcodec"):
            return self._obstacle_for_torchcodec(frame)
        if "mpegts" in self._file.container.format.name:
            return "it loses the first pictures of transport streams"
        if frame is not None and is_turned(frame):
            return "it does not turn or mirror pictures in every container"
        if frame is not None and min(frame.width, frame.height) < SMALLEST_FOR_DECORD:
            return f"pictures of {frame.width}x{frame.height} are too small for it"
        return None

    def _obstacle_for_torchcodec(self, frame: VideoFrame | None) -> str | None:
        if frame is not None and is_mirrored(frame):
            return "it does not mirror pictures"
        if self._file.decode_timed and self._file.stream.codec_context.has_b_frames:
            return "it mistakes the order of B-frames in AVI files"
        return None

    def read(self, times: Times) -> tuple[list[Pictures], Times]:
        """The pictures on screen at ``times`` (not decreasing), and their presentation times."""
        timeline = self.timeline
        times = np.maximum(times, timeline.times[0])
        if self._kept is not None:
            indices = on_screen(timeline.times, times)
            pictures = {int(i): self._file.to_rgb(self._kept[i]) for i in np.unique(indices)}
            return [pictures[int(i)] for i in indices], timeline.times[indices]
        try:
            found = list(self._seek_each(times) if self._keys else self._from_start(times))
        except (SeekError, av.error.FFmpegError):
            # A container whose index lies: the slow way is still right.
            self._file.notes.append("seeking in it fails, so it was read from the beginning")
            self._keys = []
            found = list(self._from_start(times))
        return [picture for picture, _ in found], np.array([time for _, time in found])

    def _from_start(self, times: Times) -> Iterator[tuple[Pictures, float]]:
        self._restart()
        return self._pass_by(times)

    def _restart(self) -> None:
        self._file.close()
        self._file.open()

    def _seek_each(self, times: Times) -> Iterator[tuple[Pictures, float]]:
        """Answer each time from the key frame before it, going on where that is nearer."""
        key_of = on_screen(np.array([key.time for key in self._keys]), times)
        for index in np.unique(key_of):
            key = self._keys[index]
            self._file.seek(key)
            yield from self._pass_by(times[key_of == index], sought=True)

    def _pass_by(self, times: Times, sought: bool = False) -> Iterator[tuple[Pictures, float]]:
        """Walk through the pictures from here on and give the one on screen at each time.

        Args:
            times: Moments asked for, not decreasing.
            sought: Whether a seek came before, which may have gone too far.

        Raises:
            SeekError: After a seek, the walk starts later than the first moment; or no picture
                comes at all.
        """
        shown: tuple[float, VideoFrame] | None = None
        picture: Pictures | None = None
        waiting = list(times)
        for time, frame in self._file.pictures():
            if shown is None and sought and time > times[0] + EPSILON:
                raise SeekError
            while shown is not None and waiting and waiting[0] + EPSILON < time:
                picture = self._file.to_rgb(shown[1]) if picture is None else picture
                yield picture, shown[0]
                waiting.pop(0)
            if not waiting:
                return
            shown, picture = (time, frame), None
        if shown is None:
            raise SeekError
        picture = self._file.to_rgb(shown[1]) if waiting else None
        for _ in waiting:
            assert picture is not None
            yield picture, shown[0]

    def close(self) -> None:
        """Release the file and the pictures kept of it."""
        self._kept = None
        self._file.close()
