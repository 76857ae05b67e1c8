"""The stretch: a part of a long video that is decoded, encoded and cached on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vidfuse.video.sampling import Times

# That a stretch has at least, but for the last one. Several are on their way at once, decoded:
# longer ones take more memory, and shorter ones more orders and files.
SECONDS = 20.0
MAX_SECONDS = 1.5 * SECONDS  # and at most
# The time without a frame that is no hole yet: in seconds, and in frames of the usual length.
LEAST_HOLE, HOLE_FRAMES = 2.0, 10


class Hole(NamedTuple):
    """A time in which a video has no frames, so that the one before stays on screen.

    Attributes:
        start: When the frame before would give way to the next one, in seconds from the start of
            the file.
        end: When the next one is shown.
        damaged: Whether the file is damaged there, and not only still.
    """

    start: float
    end: float
    damaged: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a long video.

    Attributes:
        start: Where it begins, in seconds from the start of the file.
        end: Where it ends (exclusive).
        digest: Names all that its frames are decoded from; where that is unknown, empty.
        fps: Frames per second in it, on average.
        holes: Those that it has a part of, in order.
        longest: Seconds that a frame is on screen at most, where there is no hole.
    """

    start: float
    end: float
    digest: str = ""
    fps: float = 0.0
    holes: tuple[Hole, ...] = ()
    longest: float = float("inf")


def hole_seconds(frame_time: float) -> float:
    """Seconds without a frame that make a hole, of frames that usually take so long."""
    return max(LEAST_HOLE, HOLE_FRAMES * frame_time)


def holes_between(times: Times, end: float, frame_time: float, damaged: bool) -> list[Hole]:
    """The holes among frames.

    Args:
        times: When they are shown, ``[N]`` seconds, not decreasing.
        end: When the last of them leaves the screen.
        frame_time: How long they usually are on screen.
        damaged: Whether the file is damaged wherever one is.
    """
    before = np.flatnonzero(np.diff(times) > frame_time + hole_seconds(frame_time))
    holes = [Hole(float(times[k]) + frame_time, float(times[k + 1]), damaged) for k in before]
    return holes + still_end(float(times[-1]) + frame_time, end, frame_time)


def still_end(latest: float, end: float, frame_time: float) -> list[Hole]:
    """The hole behind the last frame, where the file says that it stays on screen for so long.

    Args:
        latest: When it would give way to the next one.
        end: When it leaves the screen.
        frame_time: How long frames usually are on screen.
    """
    return [Hole(latest, end, damaged=False)] if end > latest + hole_seconds(frame_time) else []


def with_holes(stretches: list[Stretch], holes: list[Hole], frame_time: float) -> list[Stretch]:
    """The stretches, each with its holes.

    Args:
        stretches: Of a whole video.
        holes: Of the whole video.
        frame_time: How long a frame usually is on screen.
    """
    longest = frame_time + hole_seconds(frame_time)
    return [
        replace(
            each,
            holes=tuple(h for h in holes if h.start < each.end and each.start < h.end),
            longest=longest,
        )
        for each in stretches
    ]


def cut_evenly(start: float, end: float, frames: int, digest: str = "") -> list[Stretch]:
    """Stretches of the same length, from one time to another in seconds, of so many frames."""
    count = 1 if end - start <= MAX_SECONDS else round((end - start) / SECONDS)
    times = np.linspace(start, end, count + 1).tolist()
    fps = frames / max(end - start, 1e-9)
    return [Stretch(*each, digest, fps) for each in pairwise(times)]


def frame_rate(stretches: Sequence[Stretch]) -> float:
    """Frames per second of a video, on average over its stretches."""
    lengths = [each.end - each.start for each in stretches]
    frames = sum(each.fps * length for each, length in zip(stretches, lengths, strict=True))
    return frames / max(sum(lengths), 1e-9)
