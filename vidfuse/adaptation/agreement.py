"""The agreement of two networks' descriptions of the same frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Described = tuple[Tensor, Tensor]
"""Vectors of a student and of its teacher for the same frames: ``[N, D]`` and ``[N, E]``."""
RIDGE = 1.0  # relative to the mean square of the standardised description


def predicted(known: Described, unseen: Described) -> float:
    """R² of a ridge regression from the student's descriptions to the teacher's, out of sample.

    It is fitted on known frames and measured on unseen ones: the share of the teacher's squared
    distance from its mean of the known frames, each channel in its own standard deviations, that
    is predicted. It may be negative.

    Args:
        known: What both say of known frames ``[N, D]`` and ``[N, E]``.
        unseen: What both say of unseen ones.
    """
    (inputs, targets), (others, wanted) = (
        [
            ((each - mine.mean(0)) / (mine.std(0) + 1e-3)).double()
            for each, mine in zip(pair, known, strict=True)
        ]
        for pair in (known, unseen)
    )
    kernel = inputs @ inputs.T
    kernel.diagonal().add_(RIDGE * kernel.diagonal().mean())
    guessed = others @ inputs.T @ torch.linalg.solve(kernel, targets)
    return float(1 - (guessed - wanted).pow(2).sum() / wanted.pow(2).sum())


def neighbour_overlap(first: Tensor, second: Tensor, count: int = 10) -> Tensor:
    """Share [N] of each frame's nearest neighbours that two descriptions have in common."""
    sets = []
    for vectors in (first, second):
        centred = vectors - vectors.mean(0)
        cosines = F.normalize(centred / (centred.std(0) + 1e-6), dim=1)
        sets.append((cosines @ cosines.T).fill_diagonal_(-2).topk(count).indices)
    common = (sets[0][:, :, None] == sets[1][:, None, :]).any(2)
    return common.float().mean(1)
