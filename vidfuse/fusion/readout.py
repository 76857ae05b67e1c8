"""From the states of a recurrence, one for each frame, to what the classifier reads."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vidfuse.fusion.base import mask, masked_mean

Readout = Literal["mean", "last", "max"]
"""What is read from the states: their mean, the last one, or the maximum of each unit."""


def read_out(
    states: Tensor, lengths: Tensor, readout: Readout, *, bidirectional: bool = False
) -> Tensor:
    """One vector [B, S] from the states [B, T, S] of each clip, whatever its padding holds.

    Args:
        states: States [B, T, S]. Those of a bidirectional recurrence hold the forward state in
            the first half of S and the backward one in the second.
        lengths: How many of the T steps are real [B].
        readout: What is read.
        bidirectional: Whether the second half of S was computed from the end. Its last step is
            then the first frame: the state that has seen the whole clip.
    """
    if readout == "mean":
        return masked_mean(states, lengths)
    if readout == "max":
        padding = ~mask(lengths, states.shape[1])[..., None]
        return states.masked_fill(padding, -torch.inf).amax(1)
    last = states[torch.arange(len(states), device=states.device), lengths - 1]
    if not bidirectional:
        return last
    half = states.shape[2] // 2
    return torch.cat([last[:, :half], states[:, 0, half:]], dim=1)
