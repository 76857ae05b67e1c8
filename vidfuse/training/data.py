"""A dataset and its features, made ready for training."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vidfuse.backbones import Grid, choose
from vidfuse.backbones.imports import import_torch, resolve_device
from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.content import ContentIndex
from vidfuse.data.grouping import listing
from vidfuse.data.layouts import read_dataset
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import (
    build_extractor,
    check_failures,
    one_line,
    print_warnings,
)
from vidfuse.features.cache import Entry
from vidfuse.features.extract import LARGE, ExtractionStats, Extractor
from vidfuse.features.spec import FeatureSpec, parse_grid
from vidfuse.features.table import FeatureBuffer, FeatureTable, Kind, build_table
from vidfuse.heads import head_class
from vidfuse.progress import Reporter
from vidfuse.training.config import TrainConfig
from vidfuse.video.view import RANGES

SIDES = {
    *("left", "right", "leftward", "rightward", "leftwards", "rightwards"),
    *("clockwise", "counterclockwise", "anticlockwise"),
}
"""Words for directions that a mirror reverses."""
SHORT = 0.1
"""Share of clips, or of segments, that are shorter than the length that a model keeps of them."""
Pass = tuple[Kind, int, Sequence[Clip]]
"""One pass over the dataset: the kind of features, their number among the views, and the clips."""


def words(name: str) -> set[str]:
    """The words of a class's name, in lower case: of ``TurnLeft2`` those are turn and left."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


class TrainingData:
    """A dataset, its features, and the settings of a run on them.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        reporter: Receives progress updates and collects the time of each stage.
        data: What is in the dataset, where the caller knows and has said so.

    Raises:
        UserError: The dataset or the settings cannot be used.
    """

    def __init__(
        self,
        dataset: Path | str,
        config: TrainConfig,
        reporter: Reporter,
        data: Dataset | None = None,
    ) -> None:
        self.config = config
        self.reporter = reporter
        self.all_stats: list[ExtractionStats] = []
        self.hashes: dict[Clip, str] = {}
        self.unreadable: set[Clip] = set()
        self.clip_seconds = 0.0  # the median length of the clips gathered last
        self.segment_seconds = 0.0  # what nearly all actions in them last
        if data is None:
            with reporter.measure("scan"):
                number = config.split if config.split.isdecimal() else None
                data = read_dataset(Path(dataset), layout=config.layout, split=number)
            reporter.info(
                f"{data.name}: {len(data.clips)} clips, {len(data.classes)} classes ({data.layout})"
            )
        self.data = data
        for line in data.problems:
            reporter.warn(line)
        # Before anything slow: a backbone that is not there should be known at once.
        self.choice = choose(config.backbone, config.weights, config.layer)

    def with_config(self, config: TrainConfig) -> TrainingData:
        """The same dataset with other settings, such as another encoder.

        Raises:
            UserError: There is no such encoder.
        """
        other = copy(self)  # which also shares what is known of files
        other.__dict__.pop("extractor", None)
        other.config, other.all_stats = config, []
        other.choice = choose(config.backbone, config.weights, config.layer)
        return other

    @cached_property
    def contents(self) -> dict[Path, str]:
        """Content hash of each file of the dataset that can be read.

        Every file is read for it, unless the cache knows it, so it is shown as work.
        """
        paths = list(dict.fromkeys(clip.path for clip in self.data.clips))
        reporter = self.reporter if len(paths) >= LARGE else Reporter()  # which shows nothing
        with self.reporter.measure("cache"):
            contents = ContentIndex(self.config.cache_folder).contents(paths, reporter)
        return {
            path: content.digest
            for path, content in contents.items()
            if not isinstance(content, InputError)
        }

    @cached_property
    def extractor(self) -> Extractor:
        """The extractor of the features that the settings mean."""
        with self.reporter.measure("imports"):
            import_torch()  # by far the longest import
            from vidfuse.training.fit import new_head

        grid = head_class(self.config.head).grid
        if self.config.grid is not None:
            grid = parse_grid(self.config.grid)
        # Before anything slow, too: settings that the head does not take. The sizes do not matter.
        new_head(self.config, channels=512, grid=grid if isinstance(grid, int) else 1, classes=2)
        with self.reporter.measure("model"):
            device = resolve_device(self.config.device, self.reporter)  # a wrong one, too
        return build_extractor(replace(self.config, device=device), grid, self.reporter)

    def spec(self, grid: Grid) -> FeatureSpec:
        """The features that the settings mean, on another grid."""
        return replace(self.extractor.spec, grid=grid)

    def gather(
        self,
        clips: Sequence[Clip],
        *,
        augmented: Sequence[Clip] = (),
        grid: Grid | None = None,
        path: Path | None = None,
    ) -> FeatureTable:
        """Collect features of the clips that can be read; of the others, a warning.

        Args:
            clips: The clips to extract.
            augmented: Those of them of which more is extracted: their mirrored frames with
                ``--mirror``, and random views with ``--views``.
            grid: Side of the features' grid; None is what the settings say.
            path: A file for the features, for other processes to map; without it they are in
                memory or, where they are too large for that, in a file of their own.

        Raises:
            InputError: More clips failed than ``--max-failed`` allows.
            UserError: They have fewer than two classes, the settings cannot be used, or there is
                no room for their features.
        """
        self.classes_of(clips)
        extractor = replace(self.extractor)
        if grid is not None:
            extractor = build_extractor(self.config, grid, self.reporter, extractor.encoder)
        passes: list[Pass] = [("plain", 0, clips)]
        if self.config.mirror:
            passes.append(("mirrored", 0, augmented))
        passes += [("view", number, augmented) for number in range(1, self.config.views + 1)]
        count = sum(len(each) for _, _, each in passes)
        buffer = FeatureBuffer(count, self.config.cache_folder, path)
        with ExitStack() as stack:
            if len(passes) > 1:
                # One set of decode processes for all of them. Where there can be none, `run` says
                # so as soon as it needs one; of cached clips it does not.
                with suppress(UserError):
                    extractor.pool = stack.enter_context(extractor.new_pool(len(clips) >= LARGE))
            entries = self._extract(extractor, passes)
            table = build_table(entries, self.config.rule, self.config.frames, buffer)
        seconds = table.ends - table.starts
        self.clip_seconds = float(np.median(seconds))
        self.segment_seconds = float(np.quantile(seconds, SHORT))
        return table

    def _extract(
        self, extractor: Extractor, passes: Sequence[Pass]
    ) -> Iterator[tuple[Clip, Kind, Entry]]:
        """Extract clips, then mirrored ones and views, by number, of those that can be read."""
        readable = set(passes[0][2])
        for kind, number, clips in passes:
            wanted = [clip for clip in clips if clip in readable]
            if not wanted:
                continue
            extractor.view, extractor.stats = number, ExtractionStats()
            extractor.mirrored = self.config.mirror and kind != "plain"
            warned = []
            for clip, result in extractor.run(wanted):
                if isinstance(result, InputError):
                    self.reporter.warn(one_line(result))
                    readable.discard(clip)
                else:
                    if result.info.warnings:
                        warned.append((clip, result.info.warnings))
                    yield clip, kind, result
            if warned and kind == "plain":  # others would say the same
                print_warnings(warned, self.reporter)
            self.all_stats.append(extractor.stats)
            self.hashes |= extractor.stats.hashes
            if failures := extractor.stats.failures:
                self.unreadable |= {clip for clip, _ in failures}
                check_failures(failures, len(wanted), self.config.max_failed)

    def fingerprint(self, parts: Mapping[str, Sequence[Clip]]) -> str:
        """Digest of all that a head learns from: features, contents and labels, in their order."""
        rows = {
            part: [(self.hashes[clip], clip.start, clip.end, clip.label) for clip in clips]
            for part, clips in parts.items()
        }
        features = [self.extractor.spec.digest, self.config.frames, str(self.config.rule)]
        if self.config.views:
            features += [self.config.views, RANGES]
        return hashlib.sha256(json.dumps([features, rows]).encode()).hexdigest()

    def announce(self, protocol: str, warnings: Sequence[str]) -> list[str]:
        """Print how the dataset is divided; returns all warnings about it."""
        self.reporter.info(f"Split: {protocol}")
        sequence_warnings = list(warnings)
        if self.config.mirror and (
            sided := [name for name in self.data.classes if SIDES & words(name)]
        ):
            sequence_warnings.append(
                f"--mirror shows clips of these classes the wrong way round: {listing(sided)}"
            )
        for line in sequence_warnings:
            self.reporter.warn(line)
        return sequence_warnings

    def classes_of(self, clips: Sequence[Clip]) -> list[str]:
        """List the classes that can be learned from clips.

        Raises:
            UserError: There are fewer than two.
        """
        classes = sorted({clip.label for clip in clips if clip.label is not None})
        if len(classes) < 2:
            raise UserError(
                f"{self.data.root}: training needs two classes, and its training part has "
                f"{len(classes)}",
                f"Look at it with: vidfuse inspect {self.data.root}",
            )
        return classes
