"""Run folders, which hold the model, metrics and configuration of a training run.

One process at a time is at work in a folder: two would replace each other's files.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from vidfuse.atomic import write_whole, writing
from vidfuse.errors import UserError, raise_if_out_of_memory, reason_of

RUNS = Path("runs")
LATEST = "latest"
MODEL = "model.safetensors"
AUTO_FILE = "auto.json"
"""The request, trials and choices of ``--head auto``: only its runs have one."""
WHO = "another training"  # is kept out of the folder of a run
LOCK = ".lock"
# What network drives that know no locks answer: there nobody is kept out.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
OTHER_FOLDER = "Change to a folder that you can write, or name one with --out."


class Run:
    """The folder of one training run.

    Args:
        folder: Its path.

    Attributes:
        model: The model file.
        metrics: One JSON line per epoch.
        config: The resolved settings, which ``--config`` reads again.
        origin: The path of its dataset, and the number of folds.
        state: What a resumed run needs; there while the run has not ended.
        failures: One JSON line per clip that could not be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / MODEL
        self.metrics = folder / "metrics.jsonl"
        self.config = folder / "config.toml"
        self.origin = folder / "run.json"
        self.state = folder / "state.pt"
        self.failures = folder / "failures.jsonl"

    @property
    def advice(self) -> str:
        """Advice to a user where a file of this run cannot be written."""
        if self.state.exists():
            return f"Make room, then go on where it stopped: vidfuse train --resume {self.folder}"
        return "Check that the disk has room, or name a folder that you can write with --out."

    def describe(
        self,
        dataset: Path | str,
        settings: dict[str, Any],
        failures: list[dict[str, str]],
        folds: int | None = None,
    ) -> None:
        """Write what the run is made of; what one that kept no state has left there is removed.

        Args:
            dataset: The dataset's path, kept in ``run.json``.
            settings: The resolved settings, kept in ``config.toml``.
            failures: The clips that could not be read, kept in ``failures.jsonl`` if there are any.
            folds: Number of folds; None outside cross-validation.
        """
        import tomli_w

        with writing(self.folder, OTHER_FOLDER):
            self.failures.unlink(missing_ok=True)
            if not self.state.exists():
                self.metrics.unlink(missing_ok=True)
        write_whole(self.config, tomli_w.dumps(settings), self.advice)
        rest = {"dataset": os.path.abspath(dataset), "folds": folds}
        write_whole(self.origin, json.dumps(rest), self.advice)
        if failures:
            lines = "".join(json.dumps(failure) + "\n" for failure in failures)
            write_whole(self.failures, lines, self.advice)

    def keep_epochs(self, count: int) -> None:
        """Drop the lines of ``metrics.jsonl`` behind the first ``count``."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        write_whole(self.metrics, "".join(lines[:count]), self.advice)

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep what a resumed run needs, whole or not at all."""
        import torch

        content = io.BytesIO()
        torch.save(state, content)
        write_whole(self.state, content.getvalue(), self.advice)

    def load_state(self) -> dict[str, Any] | None:
        """Read what ``save_state`` kept; None when there is nothing.

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
        """The error of a state that cannot be used."""
        files = f"it and {MODEL}" if self.model.exists() else "it"
        return UserError(
            f"{self.state}: damaged ({type(error).__name__})",
            f"Remove {files}: the run then starts again from the beginning.",
        )

    def drop_state(self) -> None:
        """Forget the state of a run that has ended, and what was left by kills on the way."""
        for file in (self.state, *self.folder.glob("*.partial")):
            file.unlink(missing_ok=True)

    def set_latest(self) -> None:
        """Let ``runs/latest`` name this run, if it lies in ``runs``."""
        if self.folder.resolve().parent != RUNS.resolve():
            return
        write_whole(RUNS / LATEST, f"{self.folder.name}\n")


@contextmanager
def alone_in(folder: Path, who: str, made: Sequence[Path] = ()) -> Iterator[None]:
    """Hold a folder; the system lets go of it when the process ends, however it ends.

    The lock's file stays: removing it would let two processes hold different files. But a folder
    that was made for this, and in which nothing else was made, is removed with it: whoever has
    opened the file meanwhile finds that it is gone, and holds nothing.

    Args:
        folder: Made if need be.
        who: What is kept out, such as "another comparison".
        made: Folders that the caller has made for this, the innermost first.

    Raises:
        UserError: Another process holds it, or it cannot be written to.
    """
    from filelock import FileLock, Timeout

    with writing(folder, OTHER_FOLDER):
        made = made or [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{who} is at work in {folder}",
            "Wait until it has ended, or name another folder with --out.",
        ) from error
    except NotImplementedError:
        pass  # earlier versions of filelock say so of ENOSYS
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise UserError(
                f"cannot write to {folder} ({reason_of(error)})",
                "Name another folder with --out.",
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            if made and os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()
                for each in made:
                    each.rmdir()
        lock.release()


def named_run(out: str, stack: ExitStack) -> Run:
    """Open the folder that ``--out`` names, before anything slow is done.

    Args:
        out: The folder.
        stack: Lets go of it in the end.

    Raises:
        UserError: It cannot be made, already holds a model or a run that was cut off, or another
            training is at work there.
    """
    run = Run(Path(out).expanduser())
    stack.enter_context(alone_in(run.folder, WHO))
    if run.model.exists() and not run.state.exists():  # Ctrl-C leaves both
        raise UserError(
            f"{run.folder} already holds a model", "Name another folder with --out, or remove it."
        )
    if run.state.exists() or (run.folder / AUTO_FILE).exists():
        raise UserError(
            f"{run.folder} holds a run that was cut off",
            f"Go on with it: vidfuse train --resume {run.folder}\n"
            "Or name another folder with --out, or remove it.",
        )
    return run


def new_run(dataset: str, head: str, stack: ExitStack) -> Run:
    """Make a new folder ``runs/<dataset>-<head>-<time>``.

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
            stack.enter_context(alone_in(run.folder, WHO, [folder]))
            return run
    raise UserError(f"too many runs named {stem}", "Name a folder with --out.")


@contextmanager
def reopened_run(folder: Path) -> Iterator[tuple[Run, str]]:
    """Hold the folder of a run that was cut off; gives it and the path of its dataset.

    Raises:
        UserError: It is not a run folder, the run has ended, or another training is at work there.
    """
    run = Run(folder)
    no_run = UserError(
        f"{folder}: not a run folder that can be resumed",
        "Name the folder that `vidfuse train` made, such as runs/ucf101-lstm-20250101-120000.",
    )
    if not run.origin.is_file():  # nor is a lock left there
        raise no_run
    with alone_in(folder, WHO):
        try:
            origin = json.loads(run.origin.read_text(encoding="utf-8"))
            dataset, folds = str(origin["dataset"]), origin["folds"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise no_run from error
        if run.model.exists() and not run.state.exists():
            raise UserError(f"{folder}: this run has ended", f"Use its model: --model {folder}")
        if folds is not None:
            raise UserError(
                f"{folder}: a cross-validation cannot be resumed",
                f"Start it again; its features are kept: vidfuse train {dataset} --folds {folds} "
                f"--config {run.config}",
            )
        yield run, dataset


def latest_run() -> Path | None:
    """The run that ``runs/latest`` names, None when there is none."""
    try:
        name = (RUNS / LATEST).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = RUNS / name
    return folder if name and (folder / MODEL).exists() else None
