"""What the processes of a comparison are told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidfuse.atomic import write_whole
from vidfuse.evaluation.compare.plan import Rows
from vidfuse.features.spec import Grid


@dataclass(frozen=True)
class Workload:
    """All that a process needs to know for any task.

    Attributes:
        settings: Those of ``CompareConfig``.
        grids: The grid that each head reads.
        tables: The file of the features on each grid, by the grid's name.
        labels: Class of each clip.
        twice: The clip that each row of a table behind those of the clips shows mirrored.
        classes: How many classes there are.
        splits: For each seed and fold, the clips of each part.
    """

    settings: dict[str, Any]
    grids: dict[str, Grid]
    tables: dict[str, str]
    labels: list[int]
    twice: list[int]
    classes: int
    splits: list[list[Rows]]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_whole(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Workload:
        """The inverse of ``save``."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
