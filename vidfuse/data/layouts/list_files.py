"""Lists of clips as text: a line is ``path label``, or ``path frames label`` for frame folders.

The format of TSN and mmaction2. Which part a list is, and of which of several splits, stands in
its name: ``train.txt``, ``kinetics400_val_list_videos.txt``, ``ucf101_train_split_2_videos.txt``,
``testlist03.txt``. A path may hold spaces: the longest beginning of the line that exists is it.
Paths are relative to the list's folder, to a folder in or beside it, or to the one above.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import VIDEO_EXTENSIONS
from vidfuse.data.layouts.class_folders import subfolders
from vidfuse.data.layouts.common import (
    choose_number,
    part_of,
    read_lines,
    report,
)
from vidfuse.errors import UserError

_FOLDERS = ("", "annotations", "lists", "splits")
_CLASSES = ("classes.txt", "classInd.txt", "class_names.txt", "labels.txt", "label_map.txt")
_SAMPLE = 20  # lines by which a list is recognised, and the folder of its clips found
_MOST_ROOTS = 200
_LONGEST = 1024  # characters of a path


@dataclass(frozen=True, slots=True)
class _List:
    """A list file: the part and the number of the split that its name tells."""

    file: Path
    part: str | None
    number: str | None


@dataclass(slots=True)
class _Found:
    """The result of reading lists."""

    clips: list[Clip] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)


def recognise(root: Path) -> bool:
    """Recognise a list of clips that exist, or a folder that holds such lists by name."""
    if root.is_file():
        return root.suffix.lower() == ".txt" and _has_clips(root)
    return any(_has_clips(item.file) for item in _lists_in(root))


def read(root: Path, split: str | None) -> Dataset:
    """Read one list, or the lists of one split.

    Args:
        root: The list, or a folder that holds lists (or ``annotations`` with lists in it).
        split: Number of the split, where the lists' names are numbered; None is the first.

    Raises:
        UserError: There is no list, no such split, or a list cannot be read.
    """
    lists = [_describe(root)] if root.is_file() else _lists_in(root)
    if not lists:
        raise UserError(
            f"{root}: there is no list of clips in this folder",
            "A list is a file such as train.txt or val_list.txt with lines 'path label'.",
        )
    number = None
    if numbers := {item.number for item in lists if item.number}:
        number = choose_number(root, numbers, split)
        lists = [item for item in lists if item.number in (number, None)]
    lists = _one_for_each_part(lists)
    found = _Found()
    for item in lists:
        _read_list(item, found)
    parts = {clip.split for clip in found.clips} - {None}
    problems: list[str] = []
    report(problems, found.missing, "listed clips are missing")
    report(problems, found.ambiguous, "lines with several labels were left out")
    source = ", ".join(item.file.name for item in lists) if parts else None
    return Dataset(root, "list-files", found.clips, source, problems, number)


def _lists_in(root: Path) -> list[_List]:
    """The files that are lists by their names, in the first of the usual folders with any."""
    for inner in _FOLDERS:
        try:
            files = sorted((root / inner).glob("*.txt"))
        except OSError:
            continue
        if lists := [item for item in map(_describe, files) if item.part]:
            return lists
    return []


def _describe(file: Path) -> _List:
    words = re.findall(r"[a-z]+|\d+", file.stem.casefold())
    part = number = None
    for i, word in enumerate(words):
        if named := part_of(word.removesuffix("list").removesuffix("split")):
            part, rest = named, words[i + 1 :]
            if rest[:1] in (["split"], ["list"]):
                rest = rest[1:]
            number = rest[0].lstrip("0") if rest and rest[0].isdecimal() else None
    return _List(file, part, number or None)


def _one_for_each_part(lists: list[_List]) -> list[_List]:
    """Of lists of the same clips (as videos, as frames), the one whose clips are there."""
    best: dict[str | None, _List] = {}
    for item in lists:
        rival = best.get(item.part)
        if rival is None or _count(item.file) > _count(rival.file):
            best[item.part] = item
    order = ("train", "val", "test", None)
    return sorted(best.values(), key=lambda item: order.index(item.part))


def _has_clips(file: Path) -> bool:
    try:
        return _count(file) > 0
    except UserError:
        return False


def _count(file: Path) -> int:
    """Count the first lines of a list that name a clip that exists."""
    lines = _first_lines(file)
    return max(_existing(lines, root) for root in _roots(file))


def _existing(lines: list[str], root: Path) -> int:
    return sum(_cut(line, root)[2] for line in lines)


def _first_lines(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            return [line.strip() for line in islice(stream, _SAMPLE) if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []


def _roots(file: Path) -> list[Path]:
    """Folders that a list's paths may be relative to, the likeliest first."""
    here = Path(os.path.abspath(file)).parent
    roots = [here, *subfolders(here), here.parent, *subfolders(here.parent)]
    return list(dict.fromkeys(roots))[:_MOST_ROOTS]


def _cut(line: str, root: Path) -> tuple[str, str, bool]:
    """A line's path, the rest of it, and whether the path exists under ``root``."""
    ends = [match.start() for match in re.finditer(r"\s+", line[:_LONGEST])][::-1]
    for end in [len(line), *ends]:
        if os.path.exists(root / line[:end]):
            return line[:end], line[end:].strip(), True
    # Nothing of that name: the path then goes as far as a video's suffix, or to the label.
    for end in ends:
        if os.path.splitext(line[:end])[1].lower() in VIDEO_EXTENSIONS:
            return line[:end], line[end:].strip(), False
    path, _, label = line.rpartition(" ")
    return path or line, label, False


def _read_list(item: _List, found: _Found) -> None:
    lines = read_lines(item.file)
    root = max(_roots(item.file), key=partial(_existing, lines[:_SAMPLE]))
    names = _class_names(item.file.parent)
    for line in lines:
        path, rest, exists = _cut(line, root)
        words = rest.split()
        if not exists:
            found.missing.append(path)
            continue
        if len(words) > 1 and words[0].isdecimal():
            words = words[1:]  # the number of frames
        label = " ".join(words)
        if len(words) > 1 and all(word.isdecimal() for word in words):
            found.ambiguous.append(line)
            continue
        found.clips.append(Clip(root / path, names.get(label, label) or None, None, item.part))


def _class_names(folder: Path) -> dict[str, str]:
    """Number of each class, as text, to its name: ``1 Archery`` a line, or a name a line."""
    maps = [folder / name for name in _CLASSES] + sorted(folder.glob("label_map*.txt"))
    file = next((file for file in maps if file.is_file()), None)
    if file is None:
        return {}
    rows = [line.split(None, 1) for line in read_lines(file)]
    if all(len(row) == 2 and row[0].isdecimal() for row in rows):
        return {str(int(number)): name for number, name in rows}
    return {str(i): " ".join(row) for i, row in enumerate(rows)}
