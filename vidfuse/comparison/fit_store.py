"""Fits that are done, one file each, so that a comparison that was killed goes on."""

from __future__ import annotations

import io
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from vidfuse.atomic import write_whole
from vidfuse.comparison.plan import Task
from vidfuse.errors import UserError, reason_of
from vidfuse.progress import Reporter

ORDERED, SHUFFLED, TESTED_SHUFFLED, REVERSED = KINDS = (
    *("ordered", "shuffled", "tested_shuffled", "reversed"),
)
"""Orders of frames: as they are; shuffled in training and test; only in the test, shuffled or
reversed."""

# What zip, numpy and JSON raise of content that is not what was written. RuntimeError is zip's for
# flags that say encrypted, or a compression that nobody has.
DAMAGE = (BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError)


class DamagedError(Exception):
    """A file holds something else than was written to it."""


@dataclass(frozen=True)
class FitResult:
    """The result of a task.

    Attributes:
        scores: For each of ``KINDS`` that was measured, class probabilities [M, C] of the fold's M
            test clips.
        metadata: ``lr`` and ``dropout`` that validation chose, ``best_epoch``, ``training_seconds``
            of that fit and its refit, and ``search``: for each candidate its score on validation,
            minus the calibrated loss. Of a head that selects its frames also ``frame_budget``:
            accuracy against frames.
    """

    scores: dict[str, NDArray[np.float32]]
    metadata: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = io.BytesIO()
        # In the file metadata are called "facts", as they always were.
        np.savez(content, facts=np.array(json.dumps(self.metadata)), **self.scores)  # type: ignore[arg-type]
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> FitResult:
        """Read it.

        Raises:
            DamagedError: The file does not hold a result.
            OSError: It cannot be read.
        """
        content = io.BytesIO(path.read_bytes())  # an error of the disk is not one of the content
        try:
            with ZipFile(content) as archive:
                if part := archive.testzip():
                    raise ValueError(f"the checksum of {part} does not fit")
            content.seek(0)
            with np.load(content, allow_pickle=False) as file:
                metadata = json.loads(str(file["facts"]))
                return cls({kind: file[kind] for kind in file.files if kind in KINDS}, metadata)
        except DAMAGE as error:
            raise DamagedError(type(error).__name__) from error


class FitStore:
    """The folder of finished fits.

    Args:
        folder: Its path.
        reporter: Receives progress updates and collects the time of each stage.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder = folder
        self.reporter = reporter

    def path(self, task: Task, key: str) -> Path:
        """Path of the result of a task."""
        head = re.sub(r"[^\w-]+", "_", task.candidate.head)
        return self.folder / f"{head}-seed{task.seed}-fold{task.fold + 1}-{key}.npz"

    def find(self, task: Task, key: str) -> FitResult | None:
        """The result of a task, None where it has none yet.

        Raises:
            UserError: There is one, and the system does not let it be read.
        """
        path = self.path(task, key)
        try:
            return FitResult.load(path)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self.reporter.warn(f"{path}: damaged ({error}), so it is done again")
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({reason_of(error)})",
                "See that it can be read, or remove it: this fit is then done again.",
            ) from error
