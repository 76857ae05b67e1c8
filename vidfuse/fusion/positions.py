"""Vectors that tell frames apart by where in their clip they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidfuse.fusion.base import mask


class Positions(nn.Module):
    """A learned vector for every place between the beginning of a clip and its end.

    A frame's place is t/(L-1), from 0 for the first of L frames to 1 for the last (0 if it is the
    only one). Vectors are learned for evenly spaced places and in between mixed from the two
    neighbours. So a model takes clips of any number of frames, and a place means the same share of
    the action in all of them.

    Args:
        size: Length of a vector.
        places: How many are learned.
    """

    def __init__(self, size: int, places: int = 16) -> None:
        super().__init__()
        # As large as a projected frame, whose units start with a variance of about 1/3: smaller
        # positions are learned too late to tell directions in few clips.
        self.table = nn.Parameter(torch.randn(places, size) * 0.5)

    def forward(self, lengths: Tensor, frames: int) -> Tensor:
        """Vectors [B, T, size] for clips of lengths [B], padded to T frames; 0 for padding."""
        real = mask(lengths, frames)
        last = (lengths - 1).clamp(min=1)[:, None]
        place = torch.arange(frames, device=lengths.device) / last.to(self.table.dtype)
        place = place.clamp(max=1.0) * (len(self.table) - 1)
        before = place.long().clamp(max=len(self.table) - 2)
        share = (place - before)[..., None]
        mixed = torch.lerp(self.table[before], self.table[before + 1], share)
        return mixed.masked_fill(~real[..., None], 0.0)
