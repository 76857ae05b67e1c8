"""A copy of a video with its timeline drawn into it: the class of each moment, and a bar.

Decoding other people's files and encoding are done in a process of their own, some frames an order,
so that a crash costs one copy and progress can be shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from fractions import Fraction
from pathlib import Path
from secrets import token_hex
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidfuse.atomic import STEM, writing
from vidfuse.data.timeline import Segment
from vidfuse.errors import InputError
from vidfuse.machine import limit_memory, memory_share
from vidfuse.progress import Reporter
from vidfuse.rpc import Answer, Child, ChildEndedError, Order, serve
from vidfuse.video.frames import Pixels
from vidfuse.video.pyav_stream import VideoFile

CLOCK = Fraction(1, 90_000)  # of the copy: frames keep their times, even or not
FRAMES_AN_ORDER = 100
ORDER_SECONDS = 300.0
BAR, TEXT = 0.03, 0.06  # heights, as shares of the frame's
SMALLEST_TEXT = 10  # pixels
CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has
# Told apart by those who do not see all colours: Okabe and Ito, Color Universal Design, 2008.
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (150, 150, 150),
)  # fmt: skip
Colour = tuple[int, int, int]


def annotate_video(
    path: Path,
    segments: Sequence[Segment],
    duration: float,
    out: Path,
    reporter: Reporter,
    memory: int | None = None,
) -> None:
    """Write a copy of a video with its segments drawn into it.

    Args:
        path: The video.
        segments: What happens when.
        duration: Its length in seconds.
        out: The copy, an MP4; whole or not at all.
        reporter: Receives progress updates.
        memory: Bytes that drawing may take; None is a share of the machine's.

    Raises:
        InputError: The video cannot be read, or is a folder of frames, or no encoder is here.
        UnwritableError: The copy cannot be written.
    """
    if path.is_dir():
        raise InputError(path, "folders of frames are not drawn")
    partial = out.with_name(f".{out.name[:STEM]}.{os.getpid()}-{token_hex(4)}.partial.mp4")
    order: Order = {"path": os.path.abspath(path), "out": str(partial), "duration": duration}
    order |= {"segments": [astuple(each) for each in segments]}
    reporter.start(f"Drawing {out.name} (seconds)", max(1, round(duration)))
    done, reached = False, 0
    try:
        with writing(out, "Check that the disk has room, or name another file."):
            out.parent.mkdir(parents=True, exist_ok=True)
            with closing(Child(f"{__name__}:main", [str(memory or memory_share(1))])) as child:
                while not done:
                    answer, _ = child.ask(order, ORDER_SECONDS)
                    if "error" in answer:
                        raise InputError(path, answer["error"])
                    if "os_error" in answer:
                        raise OSError(*answer["os_error"])
                    done, order = answer["done"], {}
                    reporter.advance(round(answer["time"]) - reached)
                    reached = round(answer["time"])
            os.replace(partial, out)
    except ChildEndedError as error:
        raise InputError(path, f"drawing into a copy {error}") from error
    finally:
        reporter.finish()
        partial.unlink(missing_ok=True)


class Canvas:
    """Draws the timeline of a video into its frames.

    Args:
        width: Of the frames, in pixels.
        height: Likewise.
        segments: What happens when.
        duration: Length of the video in seconds.
    """

    def __init__(
        self, width: int, height: int, segments: Sequence[Segment], duration: float
    ) -> None:
        self.width, self.height = width - width % 2, height - height % 2  # as encoders want them
        self.segments, self.duration = segments, max(duration, 1e-6)
        names = sorted({each.label for each in segments})
        self.colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
        self.bar = max(4, round(self.height * BAR))
        self.font = ImageFont.load_default(max(SMALLEST_TEXT, round(self.height * TEXT)))
        self.whole = self._draw_bar()

    def _draw_bar(self) -> Image.Image:
        """The bar of the whole video, which is the same in every frame."""
        image = Image.new("RGB", (self.width, self.bar), (40, 40, 40))
        canvas = ImageDraw.Draw(image)
        for each in self.segments:
            left, right = (round(t / self.duration * self.width) for t in (each.start, each.end))
            colour = self.colours[each.label]
            canvas.rectangle((left, 0, max(left, right - 1), self.bar), fill=colour)
        return image

    def draw(self, pixels: Pixels, time: float) -> Pixels:
        """A frame ``uint8 [H, W, 3]`` with what happens at its time, in seconds."""
        image = Image.fromarray(pixels[: self.height, : self.width])
        canvas = ImageDraw.Draw(image)
        top = self.height - self.bar
        image.paste(self.whole, (0, top))
        at = round(time / self.duration * self.width)
        canvas.rectangle((at - 1, top - 2, at + 1, self.height), fill=(255, 255, 255))
        margin = self.bar // 2
        bottom: float = top - margin
        for each in reversed([s for s in self.segments if s.start <= time < s.end]):
            score = "" if each.score is None else f" {each.score:.2f}"
            box = canvas.textbbox((margin, 0), each.label + score, font=self.font)
            height = box[3] + margin
            canvas.rectangle((0, bottom - height, box[2] + margin, bottom), fill=(0, 0, 0))
            place = (margin, bottom - height)
            canvas.text(place, each.label + score, fill=self.colours[each.label], font=self.font)
            bottom -= height
        return np.asarray(image)


class _Copy:
    """A copy on its way; see `annotate_video`."""

    def __init__(self, order: Order) -> None:
        self.file = VideoFile(order["path"])
        self.frames = self.file.frames()
        self.segments = [Segment(*each) for each in order["segments"]]
        self.duration = order["duration"]
        self.container = av.open(order["out"], "w", format="mp4")
        self.stream: Any = None
        self.canvas: Canvas | None = None
        self.time = 0.0
        self.stamp = -1

    def go_on(self) -> bool:
        """Draw some frames; true where those were the last."""
        for _ in range(FRAMES_AN_ORDER):
            self.time, frame = next(self.frames, (self.time, None))
            if frame is None:
                if self.stream is not None:
                    self.container.mux(self.stream.encode())
                self.container.close()
                self.file.close()
                return True
            pixels = self.file.to_rgb(frame)
            if self.canvas is None:
                self.canvas = Canvas(pixels.shape[1], pixels.shape[0], self.segments, self.duration)
                self.stream = self._new_stream(self.canvas)
            if pixels.shape[1] < self.canvas.width or pixels.shape[0] < self.canvas.height:
                size = (self.canvas.width, self.canvas.height)  # a stream that changes its size
                pixels = np.asarray(Image.fromarray(pixels).resize(size))
            drawn = av.VideoFrame.from_ndarray(self.canvas.draw(pixels, self.time), format="rgb24")
            self.stamp = max(self.stamp + 1, round(self.time / CLOCK))
            drawn.pts, drawn.time_base = self.stamp, CLOCK
            self.container.mux(self.stream.encode(drawn))
        return False

    def _new_stream(self, canvas: Canvas) -> Any:
        codec = next((name for name in CODECS if name in av.codecs_available), None)
        if codec is None:
            raise InputError(self.file.path, "the installed PyAV has no encoder for a copy of it")
        rate = Fraction(1 / self.file.frame_time).limit_denominator(1001)
        options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"q:v": "4"}
        stream: Any = self.container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = canvas.width, canvas.height, "yuv420p"
        stream.codec_context.time_base = CLOCK
        return stream


def main(memory: str) -> None:
    """Serve: the first order begins a copy, and each draws some frames of it.

    Args:
        memory: Bytes that it may take.
    """
    limit_memory(int(memory))
    copies: list[_Copy] = []

    def answer(order: Order) -> Answer:
        try:
            if order:
                copies.append(_Copy(order))
            return {"done": copies[0].go_on(), "time": copies[0].time}
        except InputError as error:
            return {"error": error.reason}
        except MemoryError:
            return {"error": "drawing into a copy takes more memory than it may (--memory)"}
        except av.error.FFmpegError as error:
            return {"error": f"it cannot be copied ({error.strerror})"}
        except OSError as error:
            return {"os_error": [error.errno, error.strerror]}

    serve(answer)
