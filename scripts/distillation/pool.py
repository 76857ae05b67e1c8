"""The pool of views with the teachers' answers, kept on disk in shards so that work resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.distillation.views import Views
from vidfuse.adaptation.teacher import Teacher, answers
from vidfuse.adaptation.views import VIEWS

SHARD = 2000


def make_shard(folder: Path, number: int, views: Views, teachers: Mapping[str, Teacher]) -> None:
    """Write what is missing of a shard: the views, and the map that each teacher sees in them."""
    shard = folder / f"shard{number:03d}"
    shard.mkdir(parents=True, exist_ok=True)
    if not (shard / f"{VIEWS}.npy").exists():
        numbers = range(number * SHARD, (number + 1) * SHARD)
        _save(shard, VIEWS, np.stack([views[each] for each in numbers]))
    for name, teacher in teachers.items():
        if not (shard / f"{name}.npy").exists():
            _save(shard, name, answers(teacher, np.load(shard / f"{VIEWS}.npy", mmap_mode="r")))


def _save(shard: Path, name: str, values: np.ndarray) -> None:
    unfinished = shard / f"{name}.part.npy"
    np.save(unfinished, values)
    unfinished.rename(shard / f"{name}.npy")


class ViewPool:
    """Shards that are ready, read by row without loading them.

    Args:
        folder: Where the shards lie.
        teachers: Names of the teachers whose answers are wanted.
        shards: How many shards; None is all.

    Attributes:
        size: How many views there are.
    """

    def __init__(self, folder: Path, teachers: Sequence[str], shards: int | None = None) -> None:
        self.folder, self.teachers = folder, teachers
        self.shards = [
            {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in (VIEWS, *teachers)}
            for place in sorted(folder.glob("shard???"))[:shards]
        ]
        self.size = sum(len(shard[VIEWS]) for shard in self.shards)

    def rows(self, numbers: np.ndarray) -> dict[str, Tensor]:
        """``views`` (uint8 ``[B, S, S, 3]``) and each teacher's map (float16 ``[B, D, 4, 4]``)."""
        shards, rows = np.divmod(np.sort(numbers), SHARD)
        return {
            name: torch.from_numpy(
                np.concatenate(
                    [self.shards[each][name][rows[shards == each]] for each in np.unique(shards)]
                )
            )
            for name in (VIEWS, *self.teachers)
        }
