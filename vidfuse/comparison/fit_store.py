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
from vidfuse.errors import UserError, reason_of
from vidfuse.evaluation.compare.plan import Task
from vidfuse.progress import Progress

ORDERED, SHUFFLED, TESTED_SHUFFLED, REVERSED = KINDS = (
    *("ordered", "shuffled", "tested_shuffled", "reversed"),
)
"""How frames were ordered: as they are; shuffled in training and test; only in the test, shuffled
or backwards."""

# What zip, numpy and JSON raise of content that is not what was written. RuntimeError is zip's for
# flags that say encrypted, or a compression that nobody has.
DAMAGE = (BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError)


class DamagedError(Exception):
    """A file holds something else than was written to it."""


@dataclass(frozen=True)
class Outcome:
    """What a task found.

    Attributes:
        scores: For each of ``KINDS``, class probabilities [M, C] of the fold's M test clips.
        facts: ``lr`` and ``dropout`` that validation chose, ``best_epoch``, ``training_seconds``
            of that fit, and ``search``: for each candidate its macro F1 on validation. Of a head
            that chooses its frames also ``frame_budget``: accuracy against frames.
    """

    scores: dict[str, NDArray[np.float32]]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = io.BytesIO()
        np.savez(content, facts=np.array(json.dumps(self.facts)), **self.scores)  # type: ignore[arg-type]
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read it.

        Raises:
            DamagedError: What the file holds is no outcome.
            OSError: It cannot be read.
        """
        content = io.BytesIO(path.read_bytes())  # an error of the disk is not one of the content
        try:
            with ZipFile(content) as archive:
                if part := archive.testzip():
                    raise ValueError(f"the checksum of {part} does not fit")
            content.seek(0)
            with np.load(content, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                return cls({kind: file[kind] for kind in KINDS}, facts)
        except DAMAGE as error:
            raise DamagedError(type(error).__name__) from error


class Kept:
    """The folder of finished fits.

    Args:
        folder: Where it lies.
        progress: Is warned of damaged files.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self.progress = progress

    def path(self, task: Task, key: str) -> Path:
        """Where the outcome of a task lies."""
        head = re.sub(r"[^\w-]+", "_", task.head)
        return self.folder / f"{head}-seed{task.seed}-fold{task.fold + 1}-{key}.npz"

    def find(self, task: Task, key: str) -> Outcome | None:
        """The outcome of a task, None where it has none yet.

        Raises:
            UserError: There is one, and the system does not let it be read.
        """
        path = self.path(task, key)
        try:
            return Outcome.load(path)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self.progress.warn(f"{path}: damaged ({error}), so it is done again")
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({reason_of(error)})",
                "See that it can be read, or remove it: this fit is then done again.",
            ) from error
