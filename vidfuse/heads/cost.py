"""The cost of a head: parameters and multiply-adds are counted, milliseconds are measured."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidfuse.heads.base import Head


@dataclass(frozen=True)
class Cost:
    """The cost of a head for one clip."""

    parameters: int
    """Numbers that are learned."""
    multiply_adds: int
    """MACs (multiply-adds) of all matrix products and convolutions of a forward pass.
    What is done to single elements, or summed along edges or over time, is left out, as is usual:
    it is small beside these."""


@dataclass(frozen=True)
class Latency:
    """The time of a forward pass on this machine, medians in milliseconds for each clip."""

    alone: float
    batched: float
    batch: int
    """Number of clips in a batch."""


def count(head: Head, frames: int) -> Cost:
    """Count what a head takes for one clip of so many frames.

    The clip is passed through a copy of the head, and torch counts what its operations cost. In
    float64, because a recurrence in float32 may be a single operation of a library, which torch
    does not count; in float64 it is made of matrix products.
    """
    twin = copy.deepcopy(head).eval()
    try:
        multiply_adds = _multiply_adds(twin.double(), frames)
    except RuntimeError:  # another package's head may compute in float32 only
        multiply_adds = _multiply_adds(twin.float(), frames)
    return Cost(
        parameters=sum(parameter.numel() for parameter in head.parameters()),
        multiply_adds=multiply_adds,
    )


def _multiply_adds(head: Head, frames: int) -> int:
    features, lengths = _clips(head, 1, frames)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head(features, lengths)
    # An addition and a multiplication are two operations to torch.
    return int(counter.get_total_flops()) // 2


def measure(head: Head, frames: int, *, batch: int = 32, repeats: int = 15) -> Latency:
    """Time a head on clips of so many frames, where its weights are (CPU or GPU).

    Args:
        head: The head; it is put into evaluation mode.
        frames: Frames of each clip.
        batch: Clips in a batch.
        repeats: Forward passes of which the median is taken, after a few that warm up.
    """
    head.eval()
    alone, batched = (_milliseconds(head, size, frames, repeats) for size in (1, batch))
    return Latency(alone=alone, batched=batched / batch, batch=batch)


def _milliseconds(head: Head, clips: int, frames: int, repeats: int) -> float:
    features, lengths = _clips(head, clips, frames)
    taken = []
    with torch.no_grad():
        for _ in range(3 + repeats):
            _wait(features.device)
            start = time.perf_counter()
            head(features, lengths)
            _wait(features.device)
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[3:])


def _clips(head: Head, clips: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    weight = next(head.parameters())
    assert isinstance(head.grid, int)
    size = (clips, frames, head.channels, head.grid, head.grid)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(size, generator=generator).to(weight)
    return features, torch.full((clips,), frames, device=weight.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
