"""The parts that trainings of students share: a step's views, its rate, the step, the average."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidfuse.adaptation.student import Student
from vidfuse.adaptation.views import VIEWS

LARGEST_GRADIENT = 5.0
Batch = dict[str, Tensor]
"""``views`` ``uint8 [B, S, S, 3]``, and by each teacher's name its maps ``[B, D, 4, 4]``."""


def make_optimizer(student: Student, rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels only."""
    learned = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


def schedule(step: float, steps: int) -> float:
    """Share of the learning rate: a short linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / (0.03 * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def draw_rows(step: int, size: int, batch: int, seed: int) -> NDArray[np.int64]:
    """The views of a batch: every view once per epoch, in an order of its own."""
    per_epoch = size // batch
    order = np.random.default_rng((seed, step // per_epoch)).permutation(size)
    position = step % per_epoch * batch
    return order[position : position + batch]


def mirror(batch: Batch) -> Batch:
    """Views mirrored left to right. Teachers see them mirrored, nearly, so their maps are too."""
    return {name: each.flip(2 if name == VIEWS else 3) for name, each in batch.items()}


@torch.no_grad()
def fit_heads(student: Student, batch: Batch) -> None:
    """Begin each head with the regression from the student's map to its teacher's."""
    student.eval()
    features = torch.cat([student(part) for part in batch[VIEWS].split(100)])
    for name, head in student.heads.items():
        head.fit(features, batch[name])


def descend(student: Student, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Change the weights by the gradient of a loss."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), LARGEST_GRADIENT)
    optimizer.step()


@torch.no_grad()
def follow(averaged: Student, student: Student, share: float, step: int) -> None:
    """Move the average a little towards the student.

    Args:
        averaged: What it was.
        student: What has been learned since.
        share: Share that the average keeps; less of it in the first steps.
        step: How many steps were made.
    """
    share = min(share, (1 + step) / (10 + step))
    for mine, its in zip(
        averaged.state_dict().values(), student.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():
            mine.lerp_(its, 1 - share)
        else:
            mine.copy_(its)
