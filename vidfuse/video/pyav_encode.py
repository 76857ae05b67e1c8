"""Encoding frames anew with H.264, so that hardly anything is lost."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
from av.codec.codec import find_best_pix_fmt_of_list
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vidfuse.errors import UserError
from vidfuse.video.pyav_stream import ONE_THREAD, axes_of

CODEC = "libx264"
PRESET = "fast"
# Of these, width and height have to be even.
_HALVED = ("yuv420p", "yuvj420p", "nv12", "nv21", "yuv420p10le")
_HALVED_ACROSS = ("yuv422p", "yuvj422p", "nv16", "yuv422p10le", "nv20le")


class Encoder:
    """Writes frames to a file, at the times at which they were shown.

    Args:
        output: The file.
        source: The stream that the frames are from, for their rate, ticks and colours.
        first: The first frame, which says what the others are like.
        crf: Quality, from 0 (lossless) to 51.

    Attributes:
        count: Number of frames so far.

    Raises:
        UserError: The installed PyAV has no such encoder.
    """

    def __init__(
        self, output: OutputContainer, source: VideoStream, first: VideoFrame, crf: int
    ) -> None:
        try:
            codec = av.Codec(CODEC, "w")
        except ValueError as error:  # of PyAV: an unknown codec
            hint = "Install PyAV's own build (pip install av), or copy instead of --exact."
            raise UserError(f"the installed PyAV cannot encode with {CODEC}", hint) from error
        rate = source.average_rate or source.guessed_rate or Fraction(25)
        options = {"crf": str(crf), "preset": PRESET}
        self._tick = Fraction(source.time_base or Fraction(1, 90000))
        self._stream = cast(VideoStream, output.add_stream(CODEC, rate=rate, options=options))
        context = self._stream.codec_context
        self._turn = _turning(first)
        first = self._turned(first)
        context.width, context.height = first.width, first.height
        context.pix_fmt = self._format = _kept_format(codec, first)
        context.time_base = self._tick
        context.thread_count = 1  # clips are cut side by side
        context.sample_aspect_ratio = source.sample_aspect_ratio or Fraction(1)
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(source.codec_context, name))
        self._reformatter = VideoReformatter()
        self._seconds: dict[int, int] = {}  # ticks at which a frame comes → ticks that it stays
        self.count = 0

    def encode(self, frame: VideoFrame, time: float, until: float) -> Iterator[Packet[Any]]:
        """Add a frame that comes and goes at these seconds of the clip; gives what is ready."""
        context = self._stream.codec_context
        frame = self._turned(frame)
        if (frame.format.name, frame.width, frame.height) != (
            self._format,
            context.width,
            context.height,
        ):
            frame = self._reformatter.reformat(
                frame, context.width, context.height, self._format, **ONE_THREAD
            )
        stamp = round(time / self._tick)
        frame.pts = stamp
        frame.time_base = self._tick
        frame.pict_type = 0  # what it was need not be what is best now
        self._seconds[stamp] = max(round(until / self._tick) - stamp, 1)
        self.count += 1
        yield from self._timed(self._stream.encode(frame))

    def finish(self) -> Iterator[Packet[Any]]:
        """Give what is left."""
        yield from self._timed(self._stream.encode(None))

    def _turned(self, frame: VideoFrame) -> VideoFrame:
        """The frame as it is shown."""
        if self._turn is None:
            return frame
        self._turn.push(frame)
        return cast(VideoFrame, self._turn.pull())

    def _timed(self, packets: list[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._seconds.pop(packet.pts, packet.duration)
            yield packet


def _turning(frame: VideoFrame) -> Graph | None:
    """Filters that turn and mirror frames as the display matrix says; None where it says nothing.

    See ``VideoFile.to_rgb``: first rows become columns, where they do.
    """
    (a, b), (c, d) = axes_of(frame).tolist()
    across, down = (a, d) if abs(a) >= abs(b) else (c, b)
    wanted = {"transpose": abs(b) > abs(a), "hflip": across < 0, "vflip": down < 0}
    names = [name for name, needed in wanted.items() if needed]
    if not names:
        return None
    graph = Graph()
    graph.threads = 1
    links = [
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or Fraction(1, 90000),
        )
    ]
    links += [
        graph.add(name, *(["dir=cclock_flip"] if name == "transpose" else [])) for name in names
    ]
    links.append(graph.add("buffersink"))
    graph.link_nodes(*links).configure()
    return graph


def _kept_format(codec: av.Codec, frame: VideoFrame) -> str:
    """The frame's own pixel format where it can be encoded, else the one that loses least."""
    known = [each.name for each in codec.video_formats or []]
    if frame.width % 2:
        known = [name for name in known if name not in _HALVED + _HALVED_ACROSS]
    if frame.height % 2:
        known = [name for name in known if name not in _HALVED]
    if frame.format.name in known:
        return frame.format.name
    best, _ = find_best_pix_fmt_of_list(known, frame.format.name)
    return "yuv444p" if best is None else best.name
