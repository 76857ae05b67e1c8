"""A table of clips: CSV or JSON lines with ``path,label[,group][,split][,start][,end]``.

Paths are relative to the manifest, times are in seconds. A bad row is left out and reported with
its line number; only a manifest that cannot be understood as a whole is an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import is_frame_folder, is_single_frame
from vidfuse.data.layouts import kinetics
from vidfuse.data.layouts.common import part_of
from vidfuse.data.tables import (
    BadRowError,
    Row,
    csv_rows,
    find_delimiter,
    jsonl_rows,
    read_text,
    seconds_cell,
    text_cell,
)
from vidfuse.errors import UserError

COLUMNS = ("path", "label", "group", "split", "start", "end")
"""The columns that are read; others are ignored. Only ``path`` is required."""

_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_SUFFIXES = (".csv", ".tsv", *_JSONL_SUFFIXES)
_NAMES = ("manifest.csv", "manifest.tsv", "manifest.jsonl")
_HINT = "A manifest begins with the line path,label or path,label,group,split,start,end."

_Said = tuple[str | None, str | None, str | None]  # label, split and group
_Seen = dict[tuple[str, float, float | None], dict[_Said, int]]  # of each clip, on which lines


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
    clips: list[Clip] = []
    problems: list[str] = []
    seen: _Seen = {}
    text = read_text(file)
    if file.suffix.lower() in _JSONL_SUFFIXES:
        rows = jsonl_rows(file, text, "path", '{"path": "jump/a.mp4", "label": "jump"}')
    else:
        rows = csv_rows(file, text, find_delimiter(file, text, COLUMNS, "path", _HINT))
    for line, row in rows:
        try:
            if isinstance(row, BadRowError):
                raise row
            clip = _parse_clip(row, file.parent)
            repetition = _compare(clip, line, seen)
        except BadRowError as error:
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


def _parse_clip(row: Row, folder: Path) -> Clip:
    name = text_cell(row, "path")
    if name is None:
        raise BadRowError("the path is empty")
    start, end = seconds_cell(row, "start"), seconds_cell(row, "end")
    if end is not None and (start or 0.0) >= end:
        raise BadRowError(f"start {start or 0.0:g} is not before end {end:g}")
    split = text_cell(row, "split")
    part = None if split is None else part_of(split)
    if split is not None and part is None:
        raise BadRowError(f"unknown split '{split}' (train, val or test)")
    path = folder / name
    if not os.path.exists(path) and "\\" in name:
        path = folder / name.replace("\\", "/")  # a manifest written on Windows
    if not os.path.exists(path):
        raise BadRowError(f"there is no file {folder / name}")
    if os.path.isdir(path) and not (is_frame_folder(path) or is_single_frame(path)):
        raise BadRowError(f"{path} is a folder without frames")
    return Clip(path, text_cell(row, "label"), text_cell(row, "group"), part, start, end)


def _compare(clip: Clip, line: int, seen: _Seen) -> str | None:
    """Describe how the clip disagrees with the first row on the same clip; None if it does not.

    Raises:
        BadRowError: It says just what an earlier row said.
    """
    identity = os.path.normpath(clip.path), clip.start or 0.0, clip.end
    rows = seen.setdefault(identity, {})
    here = (clip.label, clip.split, clip.group)
    if here in rows:
        raise BadRowError(f"the same as line {rows[here]}, left out")
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
