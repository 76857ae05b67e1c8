"""The number of threads that a head is computed with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vidfuse.fusion.base import Head
from vidfuse.system import one_thread

WORTH_DIVIDING = 8e9
"""MACs of a forward pass from which several threads are faster where they have cores to
themselves."""


def threads_for(
    head: Head, frames: int, batch: int, device: str | torch.device
) -> AbstractContextManager[None]:
    """Compute with one thread, unless a head is so large that more pay.

    Threads wait for each other behind every operation. Beside other programs one of them has always
    just lost its core, and then a small head takes many times longer than with a single thread. The
    choice goes by sizes alone, so that a run is repeated, and resumed, to the bit.

    Args:
        head: The head.
        frames: Frames of a clip.
        batch: Clips in a batch.
        device: Where it is computed.
    """
    large = frame_macs(head) * frames * batch >= WORTH_DIVIDING
    return nullcontext() if large else one_thread(device)


def frame_macs(head: Head) -> int:
    """About how many MACs a head takes for a frame: each weight once, kernels at each cell."""
    assert isinstance(head.grid, int)
    weights = [weight for weight in head.parameters() if weight.ndim > 1]
    return sum(w.numel() * (head.grid**2 if w.ndim == 4 else 1) for w in weights)
