"""Sources of frames for a head that selects them: one glimpse at a time, and nothing unasked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class FrameSource(Protocol):
    """The candidate frames of B clips, there for the asking.

    Candidates are what a sampling rule chooses of a clip, in the order of time. In training they
    come from cached features (`CachedSource`); at prediction each is decoded and encoded when it
    is asked for (`vidfuse.inference.frame_selection.LiveSource`).
    """

    @property
    def lengths(self) -> Tensor:
        """Number of candidates of each clip [B], int64, at least 1."""

    def at(self, clips: Tensor, positions: Tensor) -> Tensor:
        """Features [n, D, g, g] of n candidates.

        Args:
            clips: The clips, as indices into `lengths` [n].
            positions: The candidate of each, from 0 [n].
        """


@dataclass(frozen=True, slots=True)
class CachedSource:
    """A source that has the features of all candidates, and hands out those asked for.

    Args:
        features: Features [B, K, D, g, g] of all candidates; padding may hold anything.
        lengths: How many of them are real [B].
    """

    features: Tensor
    lengths: Tensor

    def at(self, clips: Tensor, positions: Tensor) -> Tensor:
        """Features [n, D, g, g] of some candidates."""
        return self.features[clips, positions]
