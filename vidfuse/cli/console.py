"""Printing: results on stdout, and progress on stderr, without a bar in a file."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vidfuse.progress import Reporter
from vidfuse.results import Record, TimelineRecord
from vidfuse.streams import csv_cell, printable, printable_lines

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

WARNINGS_KEPT = 256  # by which it is known what was said already
SECONDS_BETWEEN_LINES = 30.0  # how often a log file hears of a long task
WIDEST_COLUMN = 10  # of a matrix, for names above it
ROWS_AROUND_BOARD = 7  # header, rules, margin and bar: a taller table would scroll away


class ConsoleReporter(Reporter):
    """Shows progress with rich on a terminal; elsewhere a line now and then.

    With ``--quiet`` only warnings are shown.
    """

    def __init__(self, began: float | None = None) -> None:
        super().__init__(began)
        self._quiet = bool(os.environ.get("VIDFUSE_QUIET"))
        self._live = sys.stderr.isatty() and not self._quiet
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._board: Any = None
        self._task, self._total, self._done = "", 0, 0
        self._last_line = self._began = 0.0
        self._warned: deque[str] = deque(maxlen=WARNINGS_KEPT)

    def start(self, task: str, total: int) -> None:
        """Show a bar."""
        task = printable(task)
        self._task, self._total, self._done = task, total, 0
        self._last_line = self._began = time.monotonic()
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

        parent = self

        class BarBelowBoard(RichProgress):
            def get_renderables(self) -> Iterator[RenderableType]:
                if parent._board is not None:
                    yield parent._board
                yield self.make_tasks_table(self.tasks)

        self._board = None
        self._bar = BarBelowBoard(
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
        note = printable(note)
        self._done += steps
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, advance=steps, note=note)
        elif not self._live and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            remaining = (self._last_line - self._began) * (self._total / max(self._done, 1) - 1)
            note = f", {note}" * bool(note)
            self.info(
                f"{self._task}: {self._done} of {self._total}{note}, {remaining / 60:.1f} min to go"
            )

    def board(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table above the bar; elsewhere than on a terminal it would only be repetition."""
        if self._bar is None:
            return
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE)
        for place, name in enumerate(header):
            table.add_column(name, justify="right" if place else "left", no_wrap=True)
        for row in rows[: self._bar.console.height - ROWS_AROUND_BOARD]:
            table.add_row(*map(printable, row))
        self._board = table

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._board = None

    def info(self, text: str) -> None:
        """Print a line, or several."""
        if not self._quiet:
            self._print(printable_lines(text))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._warned.append(text)
        self._print(f"Warning: {printable(text)}")

    def warn_once(self, text: str) -> None:
        """Print a warning, unless one that begins like it came lately."""
        if not any(line.startswith(text) for line in self._warned):
            self.warn(text)

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2))


def print_text(text: str) -> None:
    """Print text of several lines with whatever names in it."""
    print(printable_lines(text))


def write_records(
    records: Iterable[Record | TimelineRecord], form: str
) -> Iterator[Record | TimelineRecord]:
    """Print records one by one as they come (all but ``json``), and pass them on.

    The text of a record is path, label and score; of a failure neither of the two, but why in a
    fourth column. A timeline has a line (or row) for each segment, with start and end before the
    label.
    """
    writer = None
    for record in records:
        if form == "jsonl":
            print(json.dumps(record.to_dict()), flush=True)
        elif form == "text":
            lines = [[record.path, "", "", record.error or ""]]
            if isinstance(record, TimelineRecord):
                lines = _segments(record)
            elif record.score is not None:
                lines = [[record.path, record.label or "", f"{record.score:.4f}"]]
            for cells in lines:
                print("\t".join(map(printable, cells)), flush=True)
        elif form == "csv":
            for row in _rows(record):
                if writer is None:
                    writer = csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
            sys.stdout.flush()
        yield record


def _segments(record: TimelineRecord) -> list[list[str]]:
    """The columns of each line of a timeline."""
    if record.error is not None:
        return [[record.path, "", "", "", "", record.error]]
    return [
        [record.path, f"{each.start:.2f}", f"{each.end:.2f}", each.label, f"{each.score:.4f}"]
        for each in record.segments
    ] or [[record.path, "", "", "", ""]]


def _rows(record: Record | TimelineRecord) -> list[dict[str, Any]]:
    """Each row of a record."""
    if isinstance(record, Record):
        return [_flat(record)]
    path, error = csv_cell(record.path), csv_cell(record.error)
    empty = {"start": "", "end": "", "label": "", "score": ""}
    parts = [each.to_dict() for each in record.segments] or [empty]
    return [
        {"path": path, **{name: csv_cell(value) for name, value in part.items()}, "error": error}
        for part in parts
    ]


def _flat(record: Record) -> dict[str, Any]:
    flat = record.to_dict()
    flat["top"] = "; ".join(f"{each.label}={each.score:.4f}" for each in record.top)
    flat["warnings"] = "; ".join(record.warnings)
    if record.glimpses is not None:
        flat["glimpses"] = "; ".join(f"{time:.3f}" for time in record.glimpses)
    return {name: csv_cell(value) for name, value in flat.items()}


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    lines = [tuple(map(printable, line)) for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def shortened(names: list[str]) -> list[str]:
    """Names that fit above a column, if they still differ then."""
    wide = WIDEST_COLUMN
    short = [name if len(name) <= wide else name[: wide - 1] + "…" for name in names]
    return short if len(set(short)) == len(set(names)) else names


def human_size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_count(count: int) -> str:
    """A number to three digits, in the unit that fits: 6.15 k, 798 k, 12.6 M."""
    rounded = float(f"{count:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:#.3g}".rstrip(".") + f" {unit}"
    return str(count)
