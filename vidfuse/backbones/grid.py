"""Pooling a map of features to a coarser grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import Grid

if TYPE_CHECKING:
    from torch import Tensor

Scalar = TypeVar("Scalar", np.float16, np.float32)


def area_weights(side: int, grid: int) -> NDArray[np.float32]:
    """Weights ``[grid, side]`` that average ``side`` pixels into ``grid`` equal cells.

    A pixel that two cells share counts in each by the part of it that lies there. So the mean of
    neighbouring cells is exactly the larger cell: coarser grids nest in finer ones.
    """
    edges = np.arange(grid + 1) * side / grid
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * grid / side, np.float32)


def pool(features: NDArray[Scalar], grid: Grid) -> NDArray[Scalar]:
    """Average features ``[T, D, h, w]`` over the cells of a grid: ``[T, D, grid, grid]``."""
    height, width = features.shape[-2:]
    if grid == "native" or (height, width) == (grid, grid):
        return features
    rows, columns = area_weights(height, grid), area_weights(width, grid)
    pooled = rows @ features.astype(np.float32) @ columns.T
    return pooled.astype(features.dtype)


def pool_maps(maps: Tensor, grid: Grid) -> Tensor:
    """The same of float32 maps ``[N, D, h, w]``, where they were computed."""
    import torch

    height, width = maps.shape[-2:]
    if grid == "native" or (height, width) == (grid, grid):
        return maps
    rows, columns = (torch.from_numpy(area_weights(side, grid)) for side in (height, width))
    return rows.to(maps.device) @ maps @ columns.to(maps.device).T
