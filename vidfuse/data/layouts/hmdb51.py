"""HMDB51: ``<class>/<film>_<class>_<visible>_<camera>_<people>_<view>_<quality>_<n>.avi``.

Kuehne, Jhuang, Garrote, Poggio, Serre: HMDB: A Large Video Database for Human Motion
Recognition, ICCV 2011. Its three splits are files ``<class>_test_split<1|2|3>.txt`` with lines
``name.avi 1`` (train), ``2`` (test) or ``0`` (in neither); copies with one ``trainlist01.txt``
and ``testlist01.txt`` per split are read too. Clips from one film are one group, whatever part of
it they were cut from and whatever is done in them.
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
from vidfuse.errors import InputError, UserError

_CLASSES = """
    brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat
    fall_floor fencing flic_flac golf handstand hit hug jump kick_ball kick kiss laugh pick pour
    pullup punch push pushup ride_bike ride_horse run shake_hands shoot_ball shoot_bow shoot_gun
    sit situp smile smoke somersault stand swing_baseball sword_exercise sword talk throw turn walk
    wave
"""
CLASSES = frozenset(_CLASSES.split())
"""The dataset's own classes, which end the first part of a file's name."""

# Visible body part, camera motion, number of people, viewpoint, quality, number of the clip.
_NAME = re.compile(r"(?P<words>.+)_[hufl]_[cn]m_np\d+_(?:fr|ri|le|ba)_(?:goo|med|bad)_\d+")
_PART_OF_FILM = re.compile(r"(?:_+#?_*\d{1,2})+$")
_OFFICIAL = re.compile(r"(?P<label>.+)_test_split(?P<number>\d+)\.txt")
_SINGLE = re.compile(r"(?P<part>train|test)list0*(?P<number>\d+)\.txt")
_LISTS_FOLDER = "testTrainMulti_7030_splits"
_FOLDERS = (_LISTS_FOLDER, f"test_train_splits/{_LISTS_FOLDER}", "test_train_splits", "splits", "")
_PARTS = {"0": None, "1": "train", "2": "test"}

_Listed = dict[str, str | None]


def recognise(root: Path) -> bool:
    """Check that the clips have HMDB51 names, and lists are near or no other split is."""
    if not root.is_dir():
        return False
    named = names_follow(root, lambda path: split_name(clip_stem(path)) is not None)
    return named and (_find_lists(root) is not None or not has_other_split(root))


def read(root: Path, split: str | None) -> Dataset:
    """Read the clips below ``root`` and, where its lists are near, one of the three splits.

    Args:
        root: The folder with the class folders, or with the clips themselves; the lists are in
            it or beside it.
        split: Number of the official split; None is the first.

    Raises:
        UserError: There is no such split, or no list at all and one was asked for.
    """
    lists = _find_lists(root)
    if lists is None and split is not None:
        raise UserError(
            f"{root}: there is no split '{split}', because no {_LISTS_FOLDER} was found in this "
            "folder or beside it",
            "Unpack test_train_splits.rar of the dataset there, or use --split group.",
        )
    problems: list[str] = []
    listed: _Listed = {}
    number = source = None
    if lists is not None:
        files = _list_files(lists)
        number = choose_number(root, files, split)
        listed = _read_lists(files[number], problems)
        source = f"{lists.name}, split {number}"
    clips = _read_clips(root, listed, problems)
    if lists is not None:
        present = {clip_stem(clip.path) for clip in clips}
        missing = [name for name, part in listed.items() if part and name not in present]
        report(problems, missing, "listed clips are missing")
        unlisted = [name for name in present if name not in listed]
        report(problems, sorted(unlisted), "clips are on no list and belong to no part")
    return Dataset(root, "hmdb51", clips, source, problems, number)


def split_name(stem: str, folder: str | None = None) -> tuple[str, str] | None:
    """The film and the class in the name of a clip.

    Args:
        stem: The name without its suffix.
        folder: Name of the folder that it lies in, which is the class if the name says so too.

    Returns:
        None for other names. The film may itself contain underscores and names of classes; the
        class is the longest known one that the first part of the name ends with.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    words = match["words"]
    known = [name for name in (folder, *CLASSES) if name and words.endswith(f"_{name}")]
    if not known:
        return None
    label = folder if folder in known else max(known, key=len)
    assert label is not None
    film = words.removesuffix(f"_{label}")
    return _PART_OF_FILM.sub("", film) or film, label


def _find_lists(root: Path) -> Path | None:
    for folder in nearby(root):
        for inner in _FOLDERS:
            if _list_files(folder / inner):
                return folder / inner
    return None


def _list_files(lists: Path) -> dict[str, list[Path]]:
    """Number of each split and its files, official ones where there are any."""
    official: dict[str, list[Path]] = {}
    single: dict[str, list[Path]] = {}
    try:
        names = sorted(path.name for path in lists.iterdir())
    except OSError:
        return {}
    for name in names:
        if match := _OFFICIAL.fullmatch(name):
            official.setdefault(match["number"], []).append(lists / name)
        elif match := _SINGLE.fullmatch(name):
            single.setdefault(match["number"], []).append(lists / name)
    return official or {number: files for number, files in single.items() if len(files) == 2}


def _read_lists(files: list[Path], problems: list[str]) -> _Listed:
    """The part of each listed clip, by its name without a suffix."""
    listed: _Listed = {}
    odd: list[str] = []
    for file in files:
        single = _SINGLE.fullmatch(file.name)
        for line in read_lines(file):
            name, _, code = line.rpartition(" ")
            name = name.strip().rpartition("/")[2]
            if not name or (single is None and code not in _PARTS):
                odd.append(line)
                continue
            listed[clip_stem(Path(name))] = single["part"] if single else _PARTS[code]
    report(problems, odd, "lines of the lists are not 'name 0|1|2' and were left out")
    return listed


def _read_clips(root: Path, listed: _Listed, problems: list[str]) -> list[Clip]:
    clips: dict[str, Clip] = {}
    unread: list[InputError] = []
    misnamed: list[str] = []
    twice: list[str] = []
    for path in walk_videos(root, unread):
        stem = clip_stem(path)
        words = split_name(stem, path.parent.name)
        if words is None:
            misnamed.append(path.name)
        elif stem in clips:
            twice.append(path.name)
        else:
            film, label = words
            clips[stem] = Clip(path, label, film, listed.get(stem))
    report(problems, misnamed, "videos not named <film>_<class>_…_<n> were left out")
    report(problems, twice, "clips are there twice under one name: the first was taken")
    problems += [error.message for error in unread]
    return list(clips.values())
