"""Graphs of frames, or of regions of frames, as adjacency matrices.

``adjacent[b, i, j]`` is true where node i hears node j. Nodes do not hear themselves here; the
layers that use a graph see to that. Nothing leads from or to padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidfuse.heads.base import mask


def chain(lengths: Tensor, frames: int, *, both: bool) -> Tensor:
    """Each frame hears the one before it, and with `both` the one after it: bool [B, T, T]."""
    t = torch.arange(frames, device=lengths.device)
    behind = t[:, None] - t
    pattern = behind.abs() == 1 if both else behind == 1
    return pattern & _real_pairs(mask(lengths, frames))


def neighbours(vectors: Tensor, lengths: Tensor, count: int) -> Tensor:
    """Each frame hears the `count` others most like it, by distance of [B, T, P]: bool [B, T, T].

    A frame that stands still is as like to one as to another. The earlier ones win then, whatever
    the padding: pairs are measured one by one, without the rounding of a matrix product, and
    sorting keeps the order of equals.
    """
    steps = vectors.shape[1]
    real = _real_pairs(mask(lengths, steps))
    itself = torch.eye(steps, dtype=torch.bool, device=vectors.device)
    with torch.no_grad():
        points = vectors.float() if vectors.dtype == torch.float16 else vectors
        far = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        far = far.masked_fill(~real | itself, torch.inf)
        nearest = far.argsort(dim=2, stable=True)[..., :count]
    found = torch.zeros_like(real).scatter_(2, nearest, True)
    return found & real & ~itself


def regions_in_space(lengths: Tensor, frames: int, grid: int) -> Tensor:
    """Each cell of a frame's map hears those above, below, left and right: bool [B, N, N].

    The cell in row y and column x of frame t is node t·g² + y·g + x.
    """
    behind, down, right = _distances(frames, grid, lengths.device)
    pattern = (behind == 0) & (down.abs() + right.abs() == 1)
    return pattern & _real_pairs(mask(lengths, frames).repeat_interleave(grid * grid, dim=1))


def regions_in_time(lengths: Tensor, frames: int, grid: int, *, both: bool) -> Tensor:
    """Each cell hears, one frame before, its own place and the up to eight around it, from where
    something may have moved; with `both` one frame after, too. bool [B, N, N], nodes as above.
    """
    behind, down, right = _distances(frames, grid, lengths.device)
    step = behind.abs() == 1 if both else behind == 1
    pattern = step & (down.abs() <= 1) & (right.abs() <= 1)
    return pattern & _real_pairs(mask(lengths, frames).repeat_interleave(grid * grid, dim=1))


def edges(adjacent: Tensor) -> Tensor:
    """The edges of all clips [2, E], sources and targets; node i of clip b has number b·N + i."""
    clip, target, source = adjacent.nonzero(as_tuple=True)
    first = clip * adjacent.shape[1]
    return torch.stack([first + source, first + target])


def _real_pairs(real: Tensor) -> Tensor:
    return real[:, :, None] & real[:, None, :]


def _distances(frames: int, grid: int, device: torch.device) -> list[Tensor]:
    """Distances of node i from node j in time, rows and columns: three of [N, N]."""
    axes = torch.meshgrid(
        *(torch.arange(size, device=device) for size in (frames, grid, grid)), indexing="ij"
    )
    return [axis.flatten()[:, None] - axis.flatten() for axis in axes]
