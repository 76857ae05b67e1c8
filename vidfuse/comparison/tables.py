"""Features of all clips, on every grid that some head reads, where all processes find them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vidfuse.atomic import write_whole
from vidfuse.data.clip import Clip
from vidfuse.evaluation.compare.config import CompareConfig
from vidfuse.evaluation.compare.plan import Plan
from vidfuse.evaluation.compare.workload import Workload
from vidfuse.features.spec import Grid
from vidfuse.features.store import EntryInfo
from vidfuse.training.prepare import Material

if TYPE_CHECKING:
    from vidfuse.features.gather import Gathered
    from vidfuse.features.table import FeatureTable


class Tables:
    """Two files for each grid, features and all else, there as long as the ``with`` block lasts.

    Args:
        folder: Where to put them.

    Attributes:
        infos: How the features of each clip came about.
        twice: The clip that each row behind those of the clips shows mirrored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.infos: list[EntryInfo] = []
        self.twice: list[int] = []
        self._paths: dict[Grid, Path] = {}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        features = map(features_of, self._paths.values())
        for path in (*self._paths.values(), *features, self._workload):
            with suppress(OSError):  # Windows keeps a file that is still mapped
                path.unlink()

    @property
    def _workload(self) -> Path:
        return self.folder / "workload.json"

    def path(self, grid: Grid) -> Path:
        """The file of a grid."""
        return self._paths[grid]

    def fill(
        self, material: Material, clips: Sequence[Clip], grids: Iterable[Grid]
    ) -> Sequence[Clip]:
        """Extract clips and write a table for each grid; returns the clips that can be read.

        The finest grid comes first: what was extracted for it is in the cache when a coarser one
        that nests in it is asked for, so no clip is decoded twice.

        Raises:
            UserError: Too many clips cannot be read, or the settings cannot be used.
        """
        tables: dict[Path, Gathered] = {}
        twice = clips
        for grid in sorted(set(grids), key=lambda grid: 0 if grid == "native" else -int(grid)):
            path = self.folder / f"features-{material.setup.spec(grid).digest}.safetensors"
            self._paths[grid] = path
            found = material.gather(clips, mirrored=twice, grid=grid, path=features_of(path))
            clips = [clip for clip in clips if clip in found]
            twice = found.twice(clips)
            tables[path] = found
        # At the end, because a clip may fail on a later grid alone, and all need the same rows.
        for path, found in tables.items():
            save_table(found.rows(clips, mirrored=twice), path)
        self.infos = [found.info(clip) for clip in clips]
        places = {clip: place for place, clip in enumerate(clips)}
        self.twice = [places[clip] for clip in twice]
        return clips

    def workload(self, plan: Plan, config: CompareConfig, grids: Mapping[str, Grid]) -> Path:
        """The file of what a process needs to know."""
        Workload(
            settings=config.to_dict(),
            grids=dict(grids),
            tables={str(grid): str(path) for grid, path in self._paths.items()},
            labels=plan.labels.tolist(),
            twice=self.twice,
            classes=len(plan.classes),
            splits=plan.splits,
        ).save(self._workload)
        return self._workload


def features_of(path: Path) -> Path:
    """The file of the features that belong to a table's file."""
    return path.with_suffix(".float16")


def save_table(table: FeatureTable, path: Path) -> None:
    """Write all of a table but its features, which lie beside it, where ``load_table`` finds it."""
    from safetensors.torch import save

    from vidfuse.features.table import OF_CLIPS

    tensors = {name: getattr(table, name).contiguous() for name in OF_CLIPS}
    more = {"shape": list(table.features.shape), "jitter": table.jitter}
    write_whole(path, save(tensors, {"table": json.dumps(more)}))


def load_table(path: Path) -> FeatureTable:
    """Read a table. The memory of its features is the file's, which processes share."""
    import torch
    from safetensors import safe_open

    from vidfuse.features.pile import map_frames
    from vidfuse.features.table import OF_CLIPS, FeatureTable

    with safe_open(path, framework="pt") as file:
        more = json.loads(file.metadata()["table"])
        tensors = {name: file.get_tensor(name) for name in OF_CLIPS}
    features = torch.from_numpy(map_frames(features_of(path), tuple(more["shape"])))
    return FeatureTable(features=features, jitter=more["jitter"], **tensors)
