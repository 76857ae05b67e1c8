"""A dataset and its features, made ready for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidfuse.data.clip import Clip
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import Split, duplicates_across
from vidfuse.errors import InputError, UserError
from vidfuse.features.setup import Setup, check_failures, one_line, summary
from vidfuse.features.store import Entry
from vidfuse.fusion import head_class
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.training.config import TrainConfig


class Material:
    """What a run is made of.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        progress: Hears of progress.
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
        with timings.measure("scan"):
            self.data = read_dataset(Path(dataset), layout=config.layout, split=config.split)

    def extract(self, clips: Sequence[Clip]) -> dict[Clip, Entry]:
        """Features of the clips that can be read; of the others, a warning.

        Raises:
            InputError: More clips failed than ``--max-failed`` allows.
        """
        with self.timings.measure("imports"):
            import torch  # noqa: F401  # by far the longest import
        config = self.config
        self.setup = Setup(config, self.timings, self.progress)
        grid = config.chosen_grid or head_class(config.head).grid
        self.extractor = self.setup.extractor(self.setup.spec(grid))
        entries = {}
        for clip, result in self.extractor.run(clips):
            if isinstance(result, InputError):
                self.progress.warn(one_line(result))
            else:
                entries[clip] = result
        check_failures(self.extractor.tally.failures, len(clips), config.max_failed)
        return entries

    def announce(self, protocol: str, warnings: Sequence[str]) -> None:
        """Say what was found and how it is divided."""
        data = self.data
        self.progress.info(
            f"{data.name}: {len(data.clips)} clips, {len(data.classes)} classes ({data.layout})"
        )
        self.progress.info(f"Split: {protocol}")
        for line in [*data.problems, *warnings]:
            self.progress.warn(line)

    def leaks(self, split: Split) -> list[str]:
        """The same content on two sides of the split, one line each, also on the screen."""
        test = dict(self.setup.index.hashes(clip.path for clip in split.test))
        known = {
            **self.extractor.tally.hashes,
            **{c: digest for c in split.test if isinstance(digest := test[c.path], str)},
        }
        found = duplicates_across(
            {
                part: [(clip, known[clip]) for clip in getattr(split, part) if clip in known]
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
        return summary(self.extractor.spec, self.setup.store, [self.extractor.tally])
