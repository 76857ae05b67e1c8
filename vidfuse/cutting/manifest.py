"""The manifest beside cut clips: what they are, and where they are from.

``train`` reads its first columns. It grows by a line with each clip, so that a run that was cut off
knows what is done, and is written anew, in order, when a run is over.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from vidfuse.atomic import append_line, write_whole
from vidfuse.cutting.names import safe_name
from vidfuse.data.files import natural_key
from vidfuse.data.tables import BadRowError, csv_rows, read_text
from vidfuse.errors import UserError

NAME = "manifest.csv"


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A line of the manifest; times in seconds, empty for None.

    Attributes:
        path: The clip, from the folder of the manifest.
        label: Its class.
        group: The video that it is from: clips of one video are never on two sides of a split.
        start: Where the segment begins in the clip, if that holds more before it.
        end: Where it ends in the clip, if that holds more behind it.
        source: The video, from the folder of the manifest.
        source_start: When the first frame of the segment is shown in the video.
        source_end: When the last one leaves the screen there.
        method: How the clip was written.
    """

    path: str
    label: str
    group: str
    start: str
    end: str
    source: str
    source_start: str
    source_end: str
    method: str


HEADER = tuple(field.name for field in fields(ManifestRow))


def as_cell(time: float | None) -> str:
    """A time as a cell: to the microsecond."""
    return "" if time is None else f"{time:.6f}".rstrip("0").rstrip(".")


def relative(path: Path, folder: Path) -> str:
    """A path from a folder, so that both can be moved together; with ``/`` on every system."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return Path(os.path.abspath(path)).as_posix()


def read_manifest(folder: Path) -> dict[str, ManifestRow]:
    """The rows of a folder's manifest by their paths; the latest of a path counts.

    Raises:
        UserError: There is one that ``cut`` did not write, or it cannot be read.
    """
    file = folder / NAME
    if not file.exists():
        return {}
    text = read_text(file)
    header = next(csv.reader(io.StringIO(text)), [])
    if tuple(header) != HEADER:
        hint = "Choose another --out, or move it away."
        raise UserError(f"{file}: not a manifest of vidfuse cut", hint)
    rows: dict[str, ManifestRow] = {}
    for _, row in csv_rows(file, text, ","):
        if not isinstance(row, BadRowError) and len(row) == len(HEADER):  # else it was cut off
            found = ManifestRow(**{name: str(row[name]) for name in HEADER})
            if not _is_ours(found):
                hint = "Choose another --out, or correct the manifest."
                raise UserError(f"{file}: the row of {found.path} leads elsewhere", hint)
            rows[found.path] = found
    return rows


def add_row(folder: Path, row: ManifestRow) -> None:
    """Add a row to the manifest, which is begun if need be.

    Raises:
        UnwritableError: It cannot be written.
    """
    file = folder / NAME
    if not file.exists():
        write_whole(file, _line(HEADER) + "\n")
    append_line(file, _line(_cells(row)))


def write_manifest(folder: Path, rows: Iterable[ManifestRow]) -> Path:
    """Write the rows whose clips are there, in order; returns the file.

    Raises:
        UnwritableError: It cannot be written.
    """
    there = [row for row in rows if (folder / row.path).is_file()]
    there.sort(key=lambda row: (natural_key(row.label), natural_key(row.path)))
    lines = [_line(HEADER), *(_line(_cells(row)) for row in there)]
    write_whole(folder / NAME, "\n".join(lines) + "\n")
    return folder / NAME


def _is_ours(row: ManifestRow) -> bool:
    """True for a clip in a class folder: new ones get the names of folder and video from rows."""
    parts = row.path.split("/")
    return len(parts) == 2 and all(safe_name(part) == part for part in (parts[0], row.group))


def _cells(row: ManifestRow) -> tuple[str, ...]:
    return tuple(getattr(row, name) for name in HEADER)


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()
