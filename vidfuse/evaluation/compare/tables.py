"""Features of all clips, on every grid that some head reads, where all processes find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vidfuse.data.clip import Clip
from vidfuse.evaluation.compare.config import CompareConfig
from vidfuse.evaluation.compare.plan import Plan
from vidfuse.evaluation.compare.workload import Workload
from vidfuse.features.spec import Grid
from vidfuse.features.store import Entry, EntryInfo
from vidfuse.training.prepare import Material

if TYPE_CHECKING:
    from vidfuse.features.table import FeatureTable

TENSORS = ("features", "lengths", "chosen", "chosen_lengths", "times", "starts", "ends")


class Tables:
    """One file of features for each grid, there as long as the ``with`` block lasts.

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
        for path in (*self._paths.values(), self._workload):
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
        order = sorted(set(grids), key=lambda grid: 0 if grid == "native" else -int(grid))
        twice = clips if material.config.mirror else []
        while True:
            rows = set()
            for grid in order:
                entries = material.extract(clips, grid=grid)
                clips = [clip for clip in clips if clip in entries]
                twice = [clip for clip in twice if clip in entries]
                mirrored = material.extract(twice, mirrored=True, grid=grid) if twice else {}
                twice = [clip for clip in twice if clip in mirrored]
                rows.add((len(clips), len(twice)))
                views = [*(entries[clip] for clip in clips), *(mirrored[clip] for clip in twice)]
                path = self.folder / f"features-{material.setup.spec(grid).digest}.safetensors"
                self._paths[grid] = path
                save_table(_stack(material, views), path)
            if len(rows) == 1:
                break
            # Something failed on a later grid alone, and all tables need the same rows: once more.
        self.infos = [entries[clip].info for clip in clips]
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


def save_table(table: FeatureTable, path: Path) -> None:
    """Write a table where ``load_table`` finds it."""
    from safetensors.torch import save_file

    tensors = {name: getattr(table, name).contiguous() for name in TENSORS}
    save_file(tensors, path, {"jitter": str(table.jitter)})


def load_table(path: Path) -> FeatureTable:
    """Read a table. Its memory is the file's, which processes share."""
    from safetensors import safe_open

    from vidfuse.features.table import FeatureTable

    with safe_open(path, framework="pt") as file:
        jitter = file.metadata()["jitter"] == "True"
        tensors = {name: file.get_tensor(name) for name in TENSORS}
    return FeatureTable(jitter=jitter, **tensors)


def _stack(material: Material, views: list[Entry]) -> FeatureTable:
    from vidfuse.features.table import FeatureTable

    return FeatureTable.stack(views, material.config.rule, material.config.frames)
