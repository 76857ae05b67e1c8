"""What the person at the terminal sees: on stderr only, and no bar where that is a file."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from vidfuse.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 30.0  # how often a log file hears of a long task


class ConsoleProgress(Progress):
    """Shows progress with rich on a terminal; elsewhere a line now and then.

    With ``--quiet`` only warnings are shown.
    """

    def __init__(self) -> None:
        self._quiet = bool(os.environ.get("VIDFUSE_QUIET"))
        self._live = sys.stderr.isatty() and not self._quiet
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._task, self._total, self._done = "", 0, 0
        self._last_line = 0.0
        self._warned: list[str] = []

    def start(self, task: str, total: int) -> None:
        """Show a bar."""
        self._task, self._total, self._done = task, total, 0
        self._last_line = time.monotonic()
        if not self._live:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._bar_task = self._bar.add_task(task, total=total, note="")
        self._bar.start()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move the bar."""
        self._done += steps
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, advance=steps, note=note)
        elif not self._live and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.info(f"{self._task}: {self._done} of {self._total}" + (f", {note}" * bool(note)))

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def info(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._warned.append(text)
        self._print(f"Warning: {text}")

    def warn_once(self, text: str) -> None:
        """Print a warning, unless one that begins like it came lately."""
        if not any(line.startswith(text) for line in self._warned[-256:]):
            self.warn(text)

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
