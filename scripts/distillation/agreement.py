"""How well a student agrees with its teachers on frames that it never saw."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vidfuse.adaptation.agreement import neighbour_overlap
from vidfuse.adaptation.student import Student
from vidfuse.adaptation.views import VIEWS, resize


@torch.inference_mode()
def agreement(student: Student, held_out: Mapping[str, Tensor], size: int) -> dict[str, float]:
    """R² of each teacher's pooled features, and the overlap of neighbours.

    Args:
        student: The student, with its heads.
        held_out: ``views`` and each teacher's map, as from a `ViewPool`.
        size: Side of the student's frames, in pixels.

    Returns:
        ``r2_<teacher>``, of all channels in their own standard deviations, and ``neighbours``,
        the share of each frame's ten nearest neighbours that the student's pooled features have in
        common with all teachers' together.
    """
    student.eval()
    parts = held_out[VIEWS].split(100)
    features = torch.cat([student(resize(part, size)) for part in parts])
    found: dict[str, float] = {}
    wanted = []
    for name, head in student.heads.items():
        truth = head.pooled(head.standardise(held_out[name]))
        residual = (head.pooled(head(features)) - truth).pow(2).sum(0)
        spread = (truth - truth.mean(0)).pow(2).sum(0) + 1e-6
        found[f"r2_{name}"] = float(1 - residual.sum() / spread.sum())
        wanted.append(truth / truth.shape[1] ** 0.5)
    pooled = features.mean((2, 3))
    found["neighbours"] = float(neighbour_overlap(pooled, torch.cat(wanted, 1)).mean())
    return {name: round(value, 4) for name, value in found.items()}
