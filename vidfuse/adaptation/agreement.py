"""How well two descriptions of the same frames agree, without fitting anything."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def alignment(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two descriptions ``[N, D]`` and ``[N, E]``.

    1 where they have the same channels, whatever the order, the scale and the offset of each; 0 on
    the average where they have nothing to do with each other, also on few frames (Kornblith et al.,
    "Similarity of neural network representations revisited", ICML 2019; with the unbiased estimate
    of Song et al., JMLR 2012, as in Nguyen et al., ICLR 2021).
    """
    kernels = []
    for vectors in (first, second):
        centred = (vectors - vectors.mean(0)).double()
        centred /= centred.std(0) + 1e-6
        kernels.append((centred @ centred.T).fill_diagonal_(0))
    mine, its = kernels
    scale = _dependence(mine, mine) * _dependence(its, its)
    return float(_dependence(mine, its) / scale.clamp_min(1e-24).sqrt())


def _dependence(first: Tensor, second: Tensor) -> Tensor:
    """The Hilbert-Schmidt independence criterion of two kernels without diagonals, unbiased but
    for a factor.
    """
    count = len(first)
    sums = first.sum() * second.sum() / ((count - 1) * (count - 2))
    return (first * second).sum() + sums - 2 / (count - 2) * (first.sum(0) @ second.sum(0))


def neighbour_overlap(first: Tensor, second: Tensor, count: int = 10) -> Tensor:
    """Share [N] of each frame's nearest neighbours that two descriptions have in common."""
    sets = []
    for vectors in (first, second):
        centred = vectors - vectors.mean(0)
        cosines = F.normalize(centred / (centred.std(0) + 1e-6), dim=1)
        sets.append((cosines @ cosines.T).fill_diagonal_(-2).topk(count).indices)
    common = (sets[0][:, :, None] == sets[1][:, None, :]).any(2)
    return common.float().mean(1)
