"""The stretch: a part of a long video that is decoded, encoded and cached on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# That a stretch has at least, but for the last one. Several are on their way at once, decoded:
# longer ones take more memory, and shorter ones more orders and files.
SECONDS = 20.0
MAX_SECONDS = 1.5 * SECONDS  # and at most


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a long video.

    Attributes:
        start: Where it begins, in seconds from the start of the file.
        end: Where it ends (exclusive).
        digest: Names all that its frames are decoded from; where that is unknown, empty.
        fps: Frames per second in it, on average.
    """

    start: float
    end: float
    digest: str = ""
    fps: float = 0.0


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
