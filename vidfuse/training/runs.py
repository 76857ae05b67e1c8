"""Run folders: where a training run leaves its model, metrics and configuration."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from vidfuse.errors import UserError

RUNS = Path("runs")
LATEST = "latest"


class Run:
    """The folder of one training run.

    Args:
        folder: Made if need be.

    Raises:
        UserError: The folder cannot be made, or already holds a model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if self.model.exists():
            raise UserError(
                f"{folder} already holds a model", "Name another folder with --out, or remove it."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.metrics.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {folder} ({error.strerror})") from error

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch."""
        return self.folder / "metrics.jsonl"

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_config(self, settings: dict[str, Any]) -> None:
        """Write the resolved settings as ``config.toml``, which ``--config`` reads again."""
        import tomli_w

        (self.folder / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")

    def write_failures(self, failures: list[dict[str, str]]) -> None:
        """Write the clips that could not be read as ``failures.jsonl``, if there are any."""
        if failures:
            lines = "".join(json.dumps(failure) + "\n" for failure in failures)
            (self.folder / "failures.jsonl").write_text(lines, encoding="utf-8")

    def set_latest(self) -> None:
        """Let ``runs/latest`` name this run, if it lies in ``runs``."""
        if self.folder.resolve().parent != RUNS.resolve():
            return
        partial = RUNS / f"{LATEST}.{os.getpid()}.partial"
        partial.write_text(f"{self.folder.name}\n", encoding="utf-8")
        partial.replace(RUNS / LATEST)


def new_run(dataset: str, head: str, out: str | None) -> Run:
    """The folder of a new run: ``--out`` itself, or ``runs/<dataset>-<head>-<time>``."""
    if out is not None:
        return Run(Path(out).expanduser())
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_") or "dataset"
    stem = f"{name}-{head}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            continue  # another run started in the same second
        except OSError as error:
            raise UserError(
                f"cannot make the run folder {folder} ({error.strerror})",
                "Change to a folder that you can write, or name one with --out.",
            ) from error
        return Run(folder)
    raise UserError(f"too many runs named {stem}")


def latest_run() -> Path | None:
    """The run that ``runs/latest`` names, None when there is none."""
    try:
        name = (RUNS / LATEST).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = RUNS / name
    return folder if name and (folder / "model.safetensors").exists() else None
