"""What a cached feature means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

from vidfuse.errors import UserError
from vidfuse.video.frames import DEFAULT_FPS

Grid = int | Literal["native"]
# Finer grids that a coarser one may be derived from, nearest first.
GRIDS: tuple[Grid, ...] = (1, 2, 4, 8, "native")
FORMAT = 2  # of an entry's file


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Everything that changes a feature's meaning; its digest names a directory of the cache.

    Attributes:
        decode: The decode policy, such as ``auto/1``, or a pinned backend.
        sampling: The sampling rule; ``segment`` caches the same pictures as ``uniform``.
        frames: The largest number of pictures of a clip.
        size: Side of the square pictures given to the backbone, in pixels.
        crop: How a picture becomes a square.
        backbone: Name of the network.
        layer: Where features leave it.
        weights: sha256 of its weights' file, or ``random``.
        grid: Side g of the map of positions that is kept; ``native`` keeps it as it is.
        precision: Class of numerical modes whose features are interchangeable.
        fps: Pictures per second of clips stored as pictures: it decides which of them a segment
            in seconds holds, and their times.
    """

    decode: str
    sampling: str
    frames: int
    size: int
    crop: str
    backbone: str
    layer: str
    weights: str
    grid: Grid
    precision: str = "fp32"
    fps: float = DEFAULT_FPS

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        return _digest(self)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the format's version, ready for JSON; the usual ``fps`` goes unsaid."""
        fields = asdict(self) | {"format": FORMAT}
        if self.fps == DEFAULT_FPS:
            del fields["fps"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> FeatureSpec:
        """The inverse of ``to_dict``."""
        return cls(**{name: value for name, value in fields.items() if name != "format"})

    def sources(self) -> Iterator[FeatureSpec]:
        """This spec, then those with finer grids that it can be derived from exactly."""
        yield self
        if self.grid == "native":
            return
        for grid in GRIDS:
            if grid == "native" or (grid > self.grid and grid % self.grid == 0):
                yield replace(self, grid=grid)


@cache  # asked for once or twice for every clip
def _digest(spec: FeatureSpec) -> str:
    text = json.dumps(spec.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_grid(text: str) -> Grid:
    """Read ``--grid``: a whole number of cells a side, or ``native``.

    Raises:
        UserError: It is neither.
    """
    if text == "native":
        return "native"
    if text.isdecimal() and 1 <= int(text) <= 64:
        return int(text)
    raise UserError(f"grid '{text}' is not a whole number from 1 to 64 or 'native'")
