"""A dataset and its features, made ready for training."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vidfuse.backbones.imports import import_torch
from vidfuse.data.clip import Clip
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import Split, duplicates_across
from vidfuse.data.units import listing
from vidfuse.errors import InputError, UserError
from vidfuse.features.extract import LARGE, Extractor, Tally
from vidfuse.features.gather import Gathered
from vidfuse.features.setup import (
    Setup,
    check_failures,
    failure_records,
    one_line,
    summary,
    tell_warnings,
)
from vidfuse.features.spec import Grid
from vidfuse.features.store import Entry
from vidfuse.fusion import head_class
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.training.config import TrainConfig

SIDES = {
    *("left", "right", "leftward", "rightward", "leftwards", "rightwards"),
    *("clockwise", "counterclockwise", "anticlockwise"),
}
"""Words for what a mirror turns into its opposite."""


def words(name: str) -> set[str]:
    """The words of a class's name, in lower case: of ``TurnLeft2`` those are turn and left."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


class Material:
    """What a run is made of.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        progress: Receives progress updates.
        timings: The command's clock.

    Raises:
        UserError: The dataset or the settings cannot be used.
    """

    def __init__(
        self, dataset: Path | str, config: TrainConfig, progress: Progress, timings: Timings
    ) -> None:
        self.config = config
        self.progress = progress
        self.timings = timings
        self.tallies: list[Tally] = []
        self.hashes: dict[Clip, str] = {}
        with timings.measure("scan"):
            number = config.split if config.split.isdecimal() else None
            self.data = read_dataset(Path(dataset), layout=config.layout, split=number)
        data = self.data
        progress.info(
            f"{data.name}: {len(data.clips)} clips, {len(data.classes)} classes ({data.layout})"
        )
        for line in data.problems:
            progress.warn(line)
        # Before anything slow: a backbone that is not there should be known at once.
        self.setup = Setup(config, timings, progress)

    @cached_property
    def contents(self) -> dict[Path, str]:
        """Content hash of each file of the dataset that can be read.

        Every file is read for it, unless the cache knows it, so it is shown as work.
        """
        paths = list(dict.fromkeys(clip.path for clip in self.data.clips))
        progress = self.progress if len(paths) >= LARGE else Progress()  # which shows nothing
        with self.timings.measure("cache"):
            contents = self.setup.index.look_at(paths, progress)
        return {
            path: content.digest
            for path, content in contents.items()
            if not isinstance(content, InputError)
        }

    @cached_property
    def extractor(self) -> Extractor:
        """Makes the features that the settings mean."""
        with self.timings.measure("imports"):
            import_torch()  # by far the longest import
            from vidfuse.training.fit import new_head

        grid = self.config.chosen_grid or head_class(self.config.head).grid
        # Before anything slow, too: settings that the head does not take. The sizes do not matter.
        new_head(self.config, channels=512, grid=grid if isinstance(grid, int) else 1, classes=2)
        return self.setup.extractor(self.setup.spec(grid))

    def gather(
        self,
        clips: Sequence[Clip],
        *,
        mirrored: Sequence[Clip] = (),
        grid: Grid | None = None,
        path: Path | None = None,
    ) -> Gathered:
        """Features of the clips that can be read, side by side; of the others, a warning.

        Args:
            clips: What to extract.
            mirrored: Those of them whose mirrored pictures are extracted too, with ``--mirror``.
            grid: Side of the features' grid; None is what the settings say.
            path: A file for the features, for other processes to map; without it they are in
                memory or, where they are too large for that, in a file of their own.

        Raises:
            InputError: More clips failed than ``--max-failed`` allows.
            UserError: They have fewer than two classes, the settings cannot be used, or there is
                no room for their features.
        """
        with self.timings.measure("imports"):
            import_torch()
            from vidfuse.features.pile import Pile
            from vidfuse.features.table import TableBuilder

        self.classes_of(clips)
        with self.timings.measure("model"):
            _ = self.setup.device  # a wrong one should be known now, too
        mirrored = mirrored if self.config.mirror else ()
        pile = Pile(len(clips) + len(mirrored), self.setup.store.root, path)
        gathered = Gathered(TableBuilder(self.config.rule, self.config.frames, pile))
        with ExitStack() as stack:
            extractor = replace(self.extractor)
            if mirrored:
                # One set of decode processes for both views. Where there can be none, `run` says
                # so as soon as it needs one; of cached clips it does not.
                with suppress(UserError):
                    extractor.pool = stack.enter_context(extractor.decoding(len(clips) >= LARGE))
            if grid is not None:
                extractor.spec = self.setup.spec(grid)
            gathered.add(self._extract(extractor, clips, False))
            readable = [clip for clip in mirrored if clip in gathered]
            gathered.add(self._extract(extractor, readable, True), mirrored=True)
        gathered.close()
        return gathered

    def _extract(
        self, extractor: Extractor, clips: Sequence[Clip], mirrored: bool
    ) -> Iterator[tuple[Clip, Entry]]:
        """Features of the clips that can be read, as they come."""
        if not clips:
            return
        extractor.mirrored, extractor.tally = mirrored, Tally()
        tally = extractor.tally
        self.tallies.append(tally)
        warned = []
        for clip, result in extractor.run(clips):
            if isinstance(result, InputError):
                self.progress.warn(one_line(result))
            else:
                warned.append((clip, result.info.warnings))
                yield clip, result
        if not mirrored:  # whose warnings are the same
            tell_warnings(warned, self.progress)
        self.hashes |= tally.hashes
        check_failures(tally.failures, len(clips), self.config.max_failed)

    def fingerprint(self, parts: Mapping[str, Sequence[Clip]]) -> str:
        """Digest of what a head learns from: features, contents and labels, in their order."""
        rows = {
            part: [(self.hashes[clip], clip.start, clip.end, clip.label) for clip in clips]
            for part, clips in parts.items()
        }
        features = (self.extractor.spec.digest, self.config.frames, str(self.config.rule))
        return hashlib.sha256(json.dumps([features, rows]).encode()).hexdigest()

    @property
    def failures(self) -> list[dict[str, str]]:
        """The clips that could not be read, as records."""
        return failure_records(failure for tally in self.tallies for failure in tally.failures)

    def announce(self, protocol: str, warnings: Sequence[str]) -> list[str]:
        """Say how the dataset is divided; returns all that is doubtful of it."""
        self.progress.info(f"Split: {protocol}")
        doubts = [*warnings, *self._mirrored_sides()]
        for line in doubts:
            self.progress.warn(line)
        return doubts

    def _mirrored_sides(self) -> list[str]:
        """A warning where mirrored clips would show the opposite of what their class says."""
        sided = [name for name in self.data.classes if SIDES & words(name)]
        if not self.config.mirror or not sided:
            return []
        return [f"--mirror shows clips of these classes the wrong way round: {listing(sided)}"]

    def leaks(self, split: Split) -> list[str]:
        """The same content on two sides of the split, one line each, also on the screen."""
        known = self.contents
        found = duplicates_across(
            {
                part: [(c, known[c.path]) for c in getattr(split, part) if c.path in known]
                for part in ("train", "val", "test")
            }
        )
        for line in found:
            self.progress.warn(line)
        return found

    def classes_of(self, clips: Sequence[Clip]) -> list[str]:
        """The classes that can be learned from clips.

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

    def summary(self) -> Mapping[str, Any]:
        """What the extraction did, ready for JSON."""
        return summary(self.extractor.spec, self.setup.store, self.tallies)
