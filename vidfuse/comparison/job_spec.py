"""The file that tells the worker processes of a comparison what to work on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidfuse.atomic import write_whole
from vidfuse.backbones import Grid
from vidfuse.comparison.plan import Rows


@dataclass(frozen=True)
class JobSpec:
    """Everything a worker process needs for any task.

    Attributes:
        settings: Those of ``CompareConfig``.
        grids: The grid that each head reads.
        tables: The file of the features on each grid, by the grid's name.
        labels: Class of each clip.
        mirrored: The clip that each row of a table behind those of the clips shows mirrored. Behind
            these are the random views, as many of each clip as the settings say.
        classes: Number of classes C.
        splits: For each seed and fold, the clips of each part.
    """

    settings: dict[str, Any]
    grids: dict[str, Grid]
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
