"""Features of all clips, of each encoder on every grid that some head reads.

They lie where all processes find them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from vidfuse.atomic import write_whole
from vidfuse.comparison.job_spec import JobSpec, table_name
from vidfuse.comparison.plan import Candidate, Plan
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.features.cache import EntryInfo
from vidfuse.features.table import OF_CLIPS, FeatureTable, map_buffer
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import TrainingData


class Tables:
    """Files of features, there as long as the ``with`` block lasts.

    There are two for each encoder and grid: the features, and all else.

    Args:
        folder: Folder of the files.

    Attributes:
        infos: Metadata of the features of each clip.
        mirrored: The clip that each row behind those of the clips shows mirrored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.infos: list[EntryInfo] = []
        self.mirrored: list[int] = []
        self._paths: dict[str, Path] = {}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        features = map(features_of, self._paths.values())
        for path in (*self._paths.values(), *features, self._job_spec):
            with suppress(OSError):  # Windows keeps a file that is still mapped
                path.unlink()

    @property
    def _job_spec(self) -> Path:
        return self.folder / "job.json"

    def path(self, candidate: Candidate) -> Path:
        """The file of the features that a candidate reads."""
        return self._paths[table_name(candidate)]

    def fill(
        self,
        data: Mapping[str, TrainingData],
        clips: Sequence[Clip],
        candidates: Sequence[Candidate],
    ) -> Sequence[Clip]:
        """Extract clips and write a table for each encoder and grid.

        The finest grid comes first: what was extracted for it is in the cache when a coarser one
        that nests in it is asked for, so no clip is decoded twice by an encoder.

        Args:
            data: The dataset with each encoder, by its name.
            clips: The clips.
            candidates: Those that read the tables.

        Returns:
            The clips that every encoder can read.

        Raises:
            UserError: Too many clips cannot be read, or the settings cannot be used.
        """
        tables: dict[Path, FeatureTable] = {}
        mirrored, count = clips, next(iter(data.values())).config.views
        of_tables = {table_name(each): each for each in candidates}
        for name, each in sorted(of_tables.items(), key=lambda item: _order(item[1], list(data))):
            training = data[each.backbone]
            path = self.folder / f"features-{training.spec(each.grid).digest}.safetensors"
            self._paths[name] = path
            with naming_encoder(each.backbone, data):
                found = training.gather(
                    clips, augmented=clips, grid=each.grid, path=features_of(path)
                )
            clips = [clip for clip in clips if clip in found.rows]
            mirrored = [clip for clip in mirrored if clip in found.mirrored_rows]
            tables[path] = found
        # At the end, because a clip may fail in a later table alone, and all need the same rows.
        for path, found in tables.items():
            rows = [found.rows[clip] for clip in clips]
            rows += [found.mirrored_rows[clip] for clip in mirrored]
            if count:
                rows += [row for clip in clips for row in found.views_of(clip, count)]
            save_table(found.select(rows), path)
        self.infos = [found.infos[found.rows[clip]] for clip in clips]
        index_of = {clip: index for index, clip in enumerate(clips)}
        self.mirrored = [index_of[clip] for clip in mirrored]
        return clips

    def write_job_spec(
        self,
        plan: Plan,
        config: TrainConfig,
        hyperparameters: Sequence[tuple[float | None, float]],
        *,
        orders: bool,
    ) -> Path:
        """Write what a worker process needs to know; returns the file."""
        JobSpec(
            settings=config.to_dict(),
            hyperparameters=list(hyperparameters),
            orders=orders,
            tables={name: str(path) for name, path in self._paths.items()},
            labels=plan.labels.tolist(),
            mirrored=self.mirrored,
            classes=len(plan.classes),
            splits=plan.splits,
        ).save(self._job_spec)
        return self._job_spec


def check_encoders(data: Mapping[str, TrainingData]) -> None:
    """See that every encoder can be built, before any work.

    Raises:
        UserError: One cannot; of several it is named.
    """
    for name, each in data.items():
        with naming_encoder(name, data):
            _ = each.extractor


@contextmanager
def naming_encoder(name: str, data: Mapping[str, TrainingData]) -> Iterator[None]:
    """Say which encoder an error is about, where there are several."""
    try:
        yield
    except UserError as error:
        if len(data) > 1 and name not in error.message:
            error.message = f"with {name}: {error.message}"
        raise


def _order(candidate: Candidate, backbones: list[str]) -> tuple[int, int]:
    """Encoders as they were named, the finest grid first."""
    grid = candidate.grid
    return backbones.index(candidate.backbone), 0 if grid == "native" else -int(grid)


def features_of(path: Path) -> Path:
    """The file of the features that belong to a table's file."""
    return path.with_suffix(".float16")


def save_table(table: FeatureTable, path: Path) -> None:
    """Write all of a table but its features, which lie beside it, where ``load_table`` finds it."""
    arrays = {name: np.ascontiguousarray(getattr(table, name)) for name in OF_CLIPS}
    more = {"shape": list(table.features.shape), "jitter": table.jitter}
    write_whole(path, save(arrays, {"table": json.dumps(more)}))


def load_table(path: Path) -> FeatureTable:
    """Read a table. The memory of its features is the file's, which processes share."""
    with safe_open(path, framework="np") as file:
        more = json.loads(file.metadata()["table"])
        arrays = {name: file.get_tensor(name) for name in OF_CLIPS}
    features = map_buffer(features_of(path), tuple(more["shape"]))
    return FeatureTable(features=features, jitter=more["jitter"], **arrays)
