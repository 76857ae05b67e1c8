"""The file that tells the worker processes of a comparison what to work on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidfuse.atomic import write_whole
from vidfuse.comparison.plan import Candidate, Rows


@dataclass(frozen=True)
class JobSpec:
    """Everything a worker process needs for any task.

    Attributes:
        settings: Those of ``TrainConfig`` that all fits share.
        hyperparameters: The learning rates (None: the head's own) and dropouts to choose from by
            validation.
        orders: Whether frames in other orders than theirs are measured too.
        tables: The file of the features of each encoder on each grid, by ``table_name``.
        labels: Class of each clip.
        mirrored: The clip that each row of a table behind those of the clips shows mirrored. Behind
            these are the random views, as many of each clip as the settings say.
        classes: Number of classes C.
        splits: For each seed and fold, the clips of each part.
    """

    settings: dict[str, Any]
    hyperparameters: Sequence[tuple[float | None, float]]
    orders: bool
    tables: dict[str, str]
    labels: list[int]
    mirrored: list[int]
    classes: int
    splits: list[list[Rows]]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_whole(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        """The inverse of ``save``."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def table_name(candidate: Candidate) -> str:
    """Name of the features that a candidate reads."""
    return f"{candidate.backbone} {candidate.grid}"
