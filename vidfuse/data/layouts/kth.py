"""KTH: ``personNN_<action>_dN_uncomp.avi``, in class folders or in one, and ``00sequences.txt``.

Schuldt, Laptev, Caputo: Recognizing Human Actions: A Local SVM Approach, ICPR 2004. A file holds
an action three or four times; ``00sequences.txt`` names the frames of each, and these segments
are the clips (2391 in all). Persons divide into train, validation and test as the authors did.
Segments are taken as published, also where a few of them overlap or are out of order.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import walk_videos
from vidfuse.data.layouts.common import (
    choose_number,
    clip_stem,
    read_lines,
    report,
)
from vidfuse.data.layouts.naming import has_other_split, names_follow, nearby
from vidfuse.errors import InputError

FRAMES_PER_SECOND = 25
PERSONS = {
    "train": (11, 12, 13, 14, 15, 16, 17, 18),
    "val": (19, 20, 21, 23, 24, 25, 1, 4),
    "test": (22, 2, 3, 5, 6, 7, 8, 9, 10),
}
"""Persons of each part, as on the dataset's page."""

_NAME = re.compile(
    r"(?P<key>person(?P<person>\d\d)_(?P<label>[a-z]+)_d[1-4])(?:_uncomp)?", re.IGNORECASE
)
_SEQUENCES = "00sequences.txt"
_LINE = re.compile(r"(?P<key>person\d\d_[a-z]+_d\d)\s+(?:frames)?\s*(?P<rest>.*)", re.IGNORECASE)
_SEGMENT = re.compile(r"(\d+)\s*-\s*(\d+)")
_MISSING = "*missing*"  # the dataset's own word for the one file that was never published

_Segments = dict[str, list[tuple[int, int]]]


def recognise(root: Path) -> bool:
    """Check that the clips have KTH names and no other split is near."""
    if not root.is_dir():
        return False
    named = names_follow(root, lambda path: _NAME.fullmatch(clip_stem(path)) is not None)
    return named and not has_other_split(root)


def read(root: Path, split: str | None) -> Dataset:
    """Read the segments of ``00sequences.txt``; without that file, each video is a clip.

    Args:
        root: The folder with the videos or their class folders; the file is in it or beside it.
        split: None or ``"1"``, the split by person.

    Raises:
        UserError: Another split was asked for, or ``00sequences.txt`` cannot be read.
    """
    number = choose_number(root, ["1"], split)
    problems: list[str] = []
    file = next((f / _SEQUENCES for f in nearby(root) if (f / _SEQUENCES).is_file()), None)
    segments = _read_segments(file, problems) if file else {}
    if file is None:
        problems.append(
            f"{_SEQUENCES} is not in the folder or beside it: each video is one clip, not four"
        )
    clips = _read_clips(root, segments, problems)
    return Dataset(root, "kth", clips, "persons", problems, number)


def _read_segments(file: Path, problems: list[str]) -> _Segments:
    """First and last frame of each segment, counted from 1, by the video's name."""
    segments: _Segments = {}
    odd: list[str] = []
    again: list[str] = []
    for line in read_lines(file):
        match = _LINE.match(line)
        if match is None:
            continue  # the text above the table
        if _MISSING in match["rest"]:
            continue
        found = [_SEGMENT.fullmatch(part.strip()) for part in match["rest"].split(",")]
        pairs = [(int(each[1]), int(each[2])) for each in found if each]
        usable = [(first, last) for first, last in pairs if 1 <= first <= last]
        if len(usable) < len(found):
            odd.append(line)
        if usable:
            if match["key"].casefold() in segments:
                again.append(line)
            segments[match["key"].casefold()] = usable
    report(problems, odd, f"lines of {file.name} have segments that cannot be used")
    report(problems, again, f"lines of {file.name} are of a video that an earlier one names: taken")
    return segments


def _read_clips(root: Path, segments: _Segments, problems: list[str]) -> list[Clip]:
    clips: list[Clip] = []
    unread: list[InputError] = []
    misnamed: list[str] = []
    whole: list[str] = []
    seen: set[str] = set()
    twice: list[str] = []
    for path in walk_videos(root, unread):
        match = _NAME.fullmatch(clip_stem(path))
        if match is None:
            misnamed.append(path.name)
            continue
        key = match["key"].casefold()
        if key in seen:
            twice.append(path.name)
            continue
        seen.add(key)
        if segments and key not in segments:
            whole.append(path.name)
        clips += _clips_of(path, match, segments.get(key))
    report(problems, misnamed, "videos not named personNN_<action>_dN were left out")
    report(problems, twice, "clips are there twice under one name: the first was taken")
    report(problems, [key for key in segments if key not in seen], "listed videos are missing")
    report(problems, whole, f"videos are not in {_SEQUENCES}: taken as one clip each")
    problems += [error.message for error in unread]
    return clips


def _clips_of(
    path: Path, match: re.Match[str], segments: list[tuple[int, int]] | None
) -> list[Clip]:
    label, person = match["label"].lower(), int(match["person"])
    group = f"person{person:02}"
    part = next((name for name, persons in PERSONS.items() if person in persons), None)
    if segments is None:
        return [Clip(path, label, group, part)]
    rate = FRAMES_PER_SECOND
    return [Clip(path, label, group, part, (a - 1) / rate, b / rate) for a, b in segments]
