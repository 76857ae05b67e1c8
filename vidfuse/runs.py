"""Run folders: where a training run leaves its model, metrics and configuration."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from vidfuse.atomic import append_line, write_whole, writing
from vidfuse.errors import UserError, raise_if_out_of_memory, reason_of
from vidfuse.locks import alone_in

RUNS = Path("runs")
LATEST = "latest"
MODEL = "model.safetensors"
OTHER_FOLDER = "Change to a folder that you can write, or name one with --out."


class Run:
    """The folder of one training run.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def alone(self) -> AbstractContextManager[None]:
        """Keep other trainings out of the folder, as long as the ``with`` block lasts.

        Raises:
            UserError: Another one is at work there.
        """
        return alone_in(self.folder, "another training")

    def clear(self) -> None:
        """Remove what another run left in the folder, which was cut off."""
        with writing(self.folder, OTHER_FOLDER):
            for stale in (self.metrics, self.failures, self.state):
                stale.unlink(missing_ok=True)

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / MODEL

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def config(self) -> Path:
        """The resolved settings, which ``--config`` reads again."""
        return self.folder / "config.toml"

    @property
    def origin(self) -> Path:
        """The place of its dataset, and the number of folds."""
        return self.folder / "run.json"

    @property
    def state(self) -> Path:
        """What a resumed run needs; there while the run has not ended."""
        return self.folder / "state.pt"

    @property
    def failures(self) -> Path:
        """One JSON line per clip that could not be read."""
        return self.folder / "failures.jsonl"

    @property
    def advice(self) -> str:
        """What a user can do where a file of this run cannot be written."""
        if self.state.exists():
            return f"Make room, then go on where it stopped: vidfuse train --resume {self.folder}"
        return "Check that the disk has room, or name a folder that you can write with --out."

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        append_line(self.metrics, json.dumps(record), self.advice)

    def keep_epochs(self, count: int) -> None:
        """Drop the lines of ``metrics.jsonl`` behind the first ``count``."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        write_whole(self.metrics, "".join(lines[:count]), self.advice)

    def describe(
        self, dataset: Path | str, settings: dict[str, Any], folds: int | None = None
    ) -> None:
        """Write the resolved settings as ``config.toml``, and the dataset's place beside them."""
        import tomli_w

        write_whole(self.config, tomli_w.dumps(settings), self.advice)
        rest = {"dataset": os.path.abspath(dataset), "folds": folds}
        write_whole(self.origin, json.dumps(rest), self.advice)

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep what a resumed run needs, whole or not at all."""
        import torch

        content = io.BytesIO()
        torch.save(state, content)
        write_whole(self.state, content.getvalue(), self.advice)

    def load_state(self) -> dict[str, Any] | None:
        """What ``save_state`` kept; None when there is nothing.

        Raises:
            UserError: It is damaged, or cannot be read.
        """
        import torch

        if not self.state.exists():
            return None
        try:
            with ZipFile(self.state) as file:  # torch itself does not look at the checksums
                if any(part.compress_type != ZIP_STORED for part in file.infolist()):
                    raise ValueError("compressed, which torch never does")
                if part := file.testzip():
                    raise ValueError(f"the checksum of {part} does not fit")
            state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
        except OSError as error:
            raise UserError(
                f"{self.state}: cannot be read ({reason_of(error)})",
                "See that the file can be read, and resume again.",
            ) from error
        except Exception as error:  # torch, pickle and zip each have their own
            raise_if_out_of_memory(error)
            raise self.damaged(error) from error
        return state

    def damaged(self, error: Exception) -> UserError:
        """What to say of a state that cannot be used."""
        files = f"it and {MODEL}" if self.model.exists() else "it"
        return UserError(
            f"{self.state}: damaged ({type(error).__name__})",
            f"Remove {files}: the run then starts again from the beginning.",
        )

    def drop_state(self) -> None:
        """Forget the state of a run that has ended, and what was left by kills on the way."""
        for file in (self.state, *self.folder.glob("*.partial")):
            file.unlink(missing_ok=True)

    def write_failures(self, failures: list[dict[str, str]]) -> None:
        """Write the clips that could not be read as ``failures.jsonl``, if there are any."""
        if failures:
            lines = "".join(json.dumps(failure) + "\n" for failure in failures)
            write_whole(self.failures, lines, self.advice)

    def set_latest(self) -> None:
        """Let ``runs/latest`` name this run, if it lies in ``runs``."""
        if self.folder.resolve().parent != RUNS.resolve():
            return
        write_whole(RUNS / LATEST, f"{self.folder.name}\n")


def named_run(out: str, stack: ExitStack) -> Run:
    """The folder that ``--out`` names, held before anything slow is done.

    Args:
        out: The folder.
        stack: Lets go of it in the end.

    Raises:
        UserError: It cannot be made, already holds a model, or another training is at work there.
    """
    run = Run(Path(out).expanduser())
    with writing(run.folder, OTHER_FOLDER):
        run.folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(run.alone())
    if run.model.exists():
        raise UserError(
            f"{run.folder} already holds a model", "Name another folder with --out, or remove it."
        )
    return run


def new_run(dataset: str, head: str, stack: ExitStack) -> Run:
    """A new folder ``runs/<dataset>-<head>-<time>``.

    Args:
        dataset: The dataset's name.
        head: The head's name.
        stack: Lets go of the folder in the end.

    Raises:
        UserError: It cannot be made.
    """
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_") or "dataset"
    stem = f"{name}-{head}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        # Another run may have started in the same second.
        with writing(folder, OTHER_FOLDER), suppress(FileExistsError):
            folder.mkdir(parents=True)
            run = Run(folder)
            stack.enter_context(run.alone())
            return run
    raise UserError(f"too many runs named {stem}", "Name a folder with --out.")


@contextmanager
def reopened_run(folder: Path) -> Iterator[tuple[Run, str]]:
    """Hold the folder of a run that was cut off; gives it and the place of its dataset.

    Raises:
        UserError: It is not a run folder, the run has ended, or another training is at work there.
    """
    run = Run(folder)
    if not run.origin.is_file():  # nor is a lock left there
        raise _no_run(folder)
    with run.alone():
        yield run, _dataset_of(run)


def _dataset_of(run: Run) -> str:
    """The place of the dataset of a run that can be resumed."""
    try:
        facts = json.loads(run.origin.read_text(encoding="utf-8"))
        dataset, folds = str(facts["dataset"]), facts["folds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_run(run.folder) from error
    if run.model.exists() and not run.state.exists():
        raise UserError(f"{run.folder}: this run has ended", f"Use its model: --model {run.folder}")
    if folds is not None:
        raise UserError(
            f"{run.folder}: a cross-validation cannot be resumed",
            f"Start it again; its features are kept: vidfuse train {dataset} --folds {folds} "
            f"--config {run.config}",
        )
    return dataset


def _no_run(folder: Path) -> UserError:
    return UserError(
        f"{folder}: not a run folder that can be resumed",
        "Name the folder that `vidfuse train` made, such as runs/ucf101-lstm-20250101-120000.",
    )


def latest_run() -> Path | None:
    """The run that ``runs/latest`` names, None when there is none."""
    try:
        name = (RUNS / LATEST).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = RUNS / name
    return folder if name and (folder / MODEL).exists() else None
