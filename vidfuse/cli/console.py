"""What the person at the terminal sees: on stderr only, and no bar where that is a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vidfuse.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class ConsoleProgress(Progress):
    """Shows progress with rich on a terminal; elsewhere only lines of text."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._live = sys.stderr.isatty()

    def start(self, task: str, total: int) -> None:
        """Show a bar."""
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
            transient=True,
        )
        self._task = self._bar.add_task(task, total=total, note="")
        self._bar.start()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, note=note)

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def info(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._print(f"Warning: {text}")

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
