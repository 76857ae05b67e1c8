"""A table of clips: CSV or JSON lines with ``path,label[,group][,split][,start][,end]``.

Paths are relative to the manifest, times are in seconds. A bad row is left out and reported with
its line number; only a manifest that cannot be understood as a whole is an error.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import describe_os_error, is_frame_folder, is_single_frame
from vidfuse.data.layouts import kinetics
from vidfuse.data.layouts.common import part_of
from vidfuse.errors import UserError

COLUMNS = ("path", "label", "group", "split", "start", "end")
"""The columns that are read; others are ignored. Only ``path`` is required."""

_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_SUFFIXES = (".csv", ".tsv", *_JSONL_SUFFIXES)
_NAMES = ("manifest.csv", "manifest.tsv", "manifest.jsonl")
_HINT = "A manifest begins with the line path,label or path,label,group,split,start,end."

_Row = Mapping[str, object]
_Said = tuple[str | None, str | None, str | None]  # label, split and group
_Seen = dict[tuple[str, float, float | None], dict[_Said, int]]  # of each clip, on which lines


class _BadRowError(ValueError):
    """A row that cannot be used, with the reason."""


def recognise(root: Path) -> bool:
    """Recognise a ``.csv``, ``.tsv`` or ``.jsonl`` file, or a folder with a manifest.

    A table of Kinetics is such a file too, and none of these.
    """
    return _find_manifest(root) is not None and not (root.is_file() and kinetics.is_table(root))


def read(root: Path, split: str | None) -> Dataset:
    """Read the manifest, checking every row.

    Args:
        root: The manifest, or the folder that holds ``manifest.csv`` (``.tsv``, ``.jsonl``).
        split: Unused: a manifest declares at most one split.

    Raises:
        UserError: The manifest cannot be read or has no ``path`` column.
    """
    file = _find_manifest(root)
    if file is None:
        raise UserError(f"{root}: there is no {' or '.join(_NAMES)} in this folder", _HINT)
    text = _read_text(file)
    parse = _jsonl_rows if file.suffix.lower() in _JSONL_SUFFIXES else _csv_rows
    clips: list[Clip] = []
    problems: list[str] = []
    seen: _Seen = {}
    for line, row in parse(file, text):
        try:
            if isinstance(row, _BadRowError):
                raise row
            clip = _parse_clip(row, file.parent)
            repetition = _compare(clip, line, seen)
        except _BadRowError as error:
            problems.append(f"{file.name}, line {line}: {error}")
            continue
        if repetition:
            problems.append(f"{file.name}, line {line}: {repetition}")
        clips.append(clip)
    source = f"{file.name}, column split" if any(clip.split for clip in clips) else None
    return Dataset(root, "manifest", clips, source, problems)


def _find_manifest(root: Path) -> Path | None:
    if root.is_dir():
        return next((root / name for name in _NAMES if (root / name).is_file()), None)
    return root if root.suffix.lower() in _SUFFIXES else None


def _read_text(file: Path) -> str:
    try:
        data = file.read_bytes()
        # Spreadsheets save "Unicode text" as UTF-16, and put a byte order mark before UTF-8.
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {describe_os_error(error)}", "Check the path.") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: line {line} is not UTF-8 text", "Save it as UTF-8.") from None


def _csv_rows(file: Path, text: str) -> Iterator[tuple[int, _Row | _BadRowError]]:
    delimiter = _find_delimiter(file, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] | None = None
    last_line = 0
    try:
        for cells in reader:
            line, last_line = last_line + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip().casefold() for cell in cells]
            elif any("\n" in cell or "\r" in cell for cell in cells):
                reason = f"a cell runs on to line {last_line}; is a quote not closed?"
                yield line, _BadRowError(reason)
            elif any(cell.strip() for cell in cells[len(header) :]):
                reason = f"{len(cells)} cells under {len(header)} columns"
                yield line, _BadRowError(f"{reason}; put quotes around a cell with a '{delimiter}'")
            else:
                yield line, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        reason = f"{file}: line {last_line + 1} cannot be read ({error})"
        raise UserError(reason, "Is a quote not closed there?") from None


def _find_delimiter(file: Path, text: str) -> str:
    headline = next((line for line in text.splitlines() if line.strip(' \t,;"')), "")
    best, most = "", 0
    for delimiter in ",;\t|":
        header = next(csv.reader([headline], delimiter=delimiter), [])
        known = [name for each in header if (name := each.strip().casefold()) in COLUMNS]
        if len(known) != len(set(known)):
            raise UserError(f"{file}: a column occurs twice in the header: {headline}", _HINT)
        if "path" in known and len(known) > most:
            best, most = delimiter, len(known)
    if not best:
        raise UserError(f"{file}: there is no column 'path' (first line: {headline[:200]})", _HINT)
    return best


def _jsonl_rows(file: Path, text: str) -> Iterator[tuple[int, _Row | _BadRowError]]:
    has_path = has_rows = False
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        has_rows = True
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, _BadRowError(f"not JSON ({error})")
            continue
        if not isinstance(row, dict):
            yield number, _BadRowError("not a JSON object")
            continue
        row = {key.strip().casefold(): value for key, value in row.items()}
        has_path = has_path or "path" in row
        yield number, row
    if has_rows and not has_path:
        raise UserError(
            f"{file}: no line is a JSON object with a 'path'",
            'A line looks like {"path": "jump/a.mp4", "label": "jump"}.',
        )


def _parse_clip(row: _Row, folder: Path) -> Clip:
    name = _text(row, "path")
    if name is None:
        raise _BadRowError("the path is empty")
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if end is not None and (start or 0.0) >= end:
        raise _BadRowError(f"start {start or 0.0:g} is not before end {end:g}")
    split = _text(row, "split")
    part = None if split is None else part_of(split)
    if split is not None and part is None:
        raise _BadRowError(f"unknown split '{split}' (train, val or test)")
    path = folder / name
    if not os.path.exists(path) and "\\" in name:
        path = folder / name.replace("\\", "/")  # a manifest written on Windows
    if not os.path.exists(path):
        raise _BadRowError(f"there is no file {folder / name}")
    if os.path.isdir(path) and not (is_frame_folder(path) or is_single_frame(path)):
        raise _BadRowError(f"{path} is a folder without frames")
    return Clip(path, _text(row, "label"), _text(row, "group"), part, start, end)


def _text(row: _Row, column: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _BadRowError(f"{column} is neither text nor a number: {value!r}")
    text = str(value).strip()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _BadRowError(f"{column} is not Unicode text: {text!a}")  # JSON can say "\\ud800"
    return text or None


def _seconds(row: _Row, column: str) -> float | None:
    text = _text(row, column)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise _BadRowError(f"{column} is not a time in seconds: '{text}'")
    return seconds


def _compare(clip: Clip, line: int, seen: _Seen) -> str | None:
    """Describe how the clip disagrees with the first row on the same clip; None if it does not.

    Raises:
        _BadRowError: It says just what an earlier row said.
    """
    identity = os.path.normpath(clip.path), clip.start or 0.0, clip.end
    rows = seen.setdefault(identity, {})
    here = (clip.label, clip.split, clip.group)
    if here in rows:
        raise _BadRowError(f"the same as line {rows[here]}, left out")
    first = next(iter(rows.items()), None)
    rows[here] = line
    if first is None:
        return None
    there, number = first
    column, mine, other = next(
        triple
        for triple in zip(("label", "split", "group"), here, there, strict=True)
        if triple[1] != triple[2]
    )
    return (
        f"{clip.name} has {column} '{mine or ''}' here and '{other or ''}' on line {number}; "
        "both rows were kept"
    )
