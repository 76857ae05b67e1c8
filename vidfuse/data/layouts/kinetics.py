"""Kinetics: tables ``label,youtube_id,time_start,time_end,split`` and the videos that they name.

Kay et al.: The Kinetics Human Action Video Dataset, arXiv:1705.06950. A trimmed clip is called
``<youtube_id>_<start>_<end>.mp4`` with six digits for each second; of a whole video
``<youtube_id>.mp4`` the seconds of its row are read. Folders between are free: per class (with
spaces or underscores), per part, or none. Many of the videos have left YouTube, so missing ones
are counted, not refused.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import walk_videos
from vidfuse.data.layouts.common import (
    clip_stem,
    part_of,
    report,
)
from vidfuse.errors import InputError, UserError

_COLUMNS = {"youtube_id", "time_start", "time_end"}
_FOLDERS = ("", "annotations")
_HINT = "A table begins with the line label,youtube_id,time_start,time_end,split."

_Row = Mapping[str, str]


def recognise(root: Path) -> bool:
    """Recognise a table of Kinetics, or a folder that holds one."""
    return is_table(root) if root.is_file() else bool(_tables_in(root))


def read(root: Path, split: str | None) -> Dataset:
    """Read the rows whose videos are below the folder (the table's own, for a single table).

    Args:
        root: A table, or a folder with tables in it or in its ``annotations``.
        split: None or ``"1"``: there is one split.

    Raises:
        UserError: There is no table or it cannot be read.
    """
    tables = [root] if root.is_file() else _tables_in(root)
    if not tables:
        raise UserError(f"{root}: there is no table of Kinetics in this folder", _HINT)
    folder = root.parent if root.is_file() else root
    unread: list[InputError] = []
    found = list(walk_videos(folder, unread))
    videos = {clip_stem(path): path for path in reversed(found)}
    twice = [path.name for path in found if videos[clip_stem(path)] is not path]
    problems = [error.message for error in unread]
    report(problems, twice, "videos are there twice under one name: the first was taken")
    clips = _read_tables(tables, videos, problems)
    parts = {clip.split for clip in clips} - {None}
    source = ", ".join(table.name for table in tables) if parts else None
    return Dataset(root, "kinetics", clips, source, problems)


def _tables_in(root: Path) -> list[Path]:
    return [
        file
        for inner in _FOLDERS
        for file in sorted((root / inner).glob("*.csv"))
        if file.is_file() and is_table(file)
    ]


def is_table(file: Path) -> bool:
    """Check the columns of a CSV file."""
    if file.suffix.lower() != ".csv":
        return False
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return set(_header(stream.readline(1000))) >= _COLUMNS
    except (OSError, UnicodeDecodeError):
        return False


def _header(line: str) -> list[str]:
    return [name.strip().casefold() for name in next(csv.reader([line]), [])]


def _read_tables(tables: list[Path], videos: dict[str, Path], problems: list[str]) -> list[Clip]:
    clips: dict[Clip, None] = {}
    missing: list[str] = []
    used: set[Path] = set()
    for table in tables:
        odd: list[str] = []
        for number, row in _rows(table):
            try:
                start, end = float(row["time_start"]), float(row["time_end"])
                if not 0 <= start < end:
                    raise ValueError(end)
            except ValueError:
                odd.append(f"line {number}")
                continue
            identity = row["youtube_id"]
            trimmed = f"{identity}_{round(start):06}_{round(end):06}"
            path = videos.get(trimmed) or videos.get(identity)
            if path is None:
                missing.append(trimmed)
                continue
            used.add(path)
            whole = clip_stem(path) == trimmed
            part = part_of(row.get("split", "")) or _part_in(table)
            times = (None, None) if whole else (start, end)
            clips[Clip(path, row.get("label") or None, identity, part, *times)] = None
        report(problems, odd, f"rows of {table.name} have no times that make sense")
    report(problems, missing, "listed clips are missing")
    unlisted = [path.name for path in videos.values() if path not in used]
    report(problems, unlisted, "videos are in no table and were left out")
    return list(clips)


def _rows(table: Path) -> Iterator[tuple[int, _Row]]:
    """Line number and cells of each row.

    Raises:
        UserError: The table cannot be read.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            header = _header(stream.readline())
            reader = csv.reader(stream)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
                    yield reader.line_num + 1, {**dict.fromkeys(_COLUMNS, ""), **row}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read ({error})", _HINT) from None


def _part_in(table: Path) -> str | None:
    """The part that a table's name tells, such as ``kinetics_val.csv``."""
    words = os.path.splitext(table.name)[0].replace("-", "_").split("_")
    return next((part for word in words if (part := part_of(word))), None)
