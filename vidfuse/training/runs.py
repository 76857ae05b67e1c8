"""Run folders: where a training run leaves its model, metrics and configuration."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vidfuse.errors import UserError

RUNS = Path("runs")
LATEST = "latest"
MODEL = "model.safetensors"


class Run:
    """The folder of one training run.

    Args:
        folder: Made if need be.

    Raises:
        UserError: The folder cannot be made, or already holds a model.
    """

    def __init__(self, folder: Path) -> None:
        refuse_model_in(folder)
        self.folder = folder
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for stale in (self.metrics, self.failures):
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
    def failures(self) -> Path:
        """One JSON line per clip that could not be read."""
        return self.folder / "failures.jsonl"

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        with _writing(self.folder), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_config(self, settings: dict[str, Any]) -> None:
        """Write the resolved settings as ``config.toml``, which ``--config`` reads again."""
        import tomli_w

        with _writing(self.folder):
            (self.folder / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")

    def write_failures(self, failures: list[dict[str, str]]) -> None:
        """Write the clips that could not be read as ``failures.jsonl``, if there are any."""
        if failures:
            lines = "".join(json.dumps(failure) + "\n" for failure in failures)
            with _writing(self.folder):
                self.failures.write_text(lines, encoding="utf-8")

    def set_latest(self) -> None:
        """Let ``runs/latest`` name this run, if it lies in ``runs``."""
        if self.folder.resolve().parent != RUNS.resolve():
            return
        partial = RUNS / f"{LATEST}.{os.getpid()}.partial"
        with _writing(RUNS):
            partial.write_text(f"{self.folder.name}\n", encoding="utf-8")
            partial.replace(RUNS / LATEST)


def refuse_model_in(folder: Path) -> None:
    """See that a run cannot overwrite the model of another.

    Raises:
        UserError: The folder holds a model.
    """
    if (folder / MODEL).exists():
        raise UserError(
            f"{folder} already holds a model", "Name another folder with --out, or remove it."
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the run folder {folder} ({error.strerror or error})",
            "Change to a folder that you can write, or name one with --out.",
        ) from error


def new_run(dataset: str, head: str, out: str | None) -> Run:
    """The folder of a new run: ``--out`` itself, or ``runs/<dataset>-<head>-<time>``.

    Raises:
        UserError: It cannot be made, or already holds a model.
    """
    if out is not None:
        return Run(Path(out).expanduser())
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_") or "dataset"
    stem = f"{name}-{head}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        # Another run may have started in the same second.
        with _writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return Run(folder)
    raise UserError(f"too many runs named {stem}", "Name a folder with --out.")


def latest_run() -> Path | None:
    """The run that ``runs/latest`` names, None when there is none."""
    try:
        name = (RUNS / LATEST).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = RUNS / name
    return folder if name and (folder / MODEL).exists() else None
