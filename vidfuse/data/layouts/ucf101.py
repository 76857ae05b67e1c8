"""UCF101 and UCF50: ``<Class>/v_<Class>_gNN_cMM.avi`` and the lists of ``ucfTrainTestlist``.

Soomro, Zamir, Shah: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild,
CRCV-TR-12-01, 2012. Clips of one class with the same group number come from the same recording.
Files are matched to lists by name alone and without regard to case, because the class
HandstandPushups is spelt HandStandPushups in part of the copies.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import walk_videos
from vidfuse.data.layouts.common import choose_number, read_lines, report
from vidfuse.data.layouts.naming import has_other_split, names_follow, nearby
from vidfuse.errors import InputError, UserError

_NAME = re.compile(r"v_(?P<label>.+)_(?P<group>g\d+)_c\d+", re.IGNORECASE)
_LIST = re.compile(r"(train|test)list0*(\d+)\.txt", re.IGNORECASE)
_LISTS_FOLDER = "ucfTrainTestlist"
_LISTS_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask"


def recognise(root: Path) -> bool:
    """Check that the clips have UCF101 names, and lists are near or no other split is."""
    if not root.is_dir():
        return False
    lists = _find_lists(root)
    if lists is not None and root in lists.parents:
        return True
    named = names_follow(root, lambda path: _follows_convention(path, root))
    return named and (lists is not None or not has_other_split(root))


def read(root: Path, split: str | None) -> Dataset:
    """Read the clips below ``root`` and, where the lists are near, one of the official splits.

    Args:
        root: The folder with the class folders; the lists are in it or beside it.
        split: Number of the official split; None is the first.

    Raises:
        UserError: There is no such split, or no list at all and one was asked for.
    """
    lists = _find_lists(root)
    number = _choose_number(root, lists, split)
    problems: list[str] = []
    listed = _read_lists(lists, number, problems) if lists and number else {}
    clips = _read_clips(root, _class_names(lists), listed, problems)
    source = None
    if lists and number:
        source = f"{lists.name}/" + ", ".join(path.name for path in _list_files(lists)[number])
        _compare_with_lists(clips, listed, problems)
    return Dataset(root, "ucf101", clips, source, problems, number)


def _follows_convention(path: Path, root: Path) -> bool:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return False
    return path.parent == root or path.parent.name.casefold() == match["label"].casefold()


def _find_lists(root: Path) -> Path | None:
    for folder in nearby(root):
        for inner in (_LISTS_FOLDER, f"{_LISTS_ARCHIVE}/{_LISTS_FOLDER}", _LISTS_ARCHIVE, ""):
            if _list_files(folder / inner):
                return folder / inner
    return None


def _list_files(lists: Path) -> dict[str, list[Path]]:
    """Number of each complete split and its files: train, then test."""
    found: dict[str, dict[str, Path]] = {}
    try:
        names = sorted(path.name for path in lists.iterdir())
    except OSError:
        return {}
    for name in names:
        if match := _LIST.fullmatch(name):
            found.setdefault(match[2], {})[match[1].casefold()] = lists / name
    return {n: [files["train"], files["test"]] for n, files in found.items() if len(files) == 2}


def _choose_number(root: Path, lists: Path | None, split: str | None) -> str | None:
    if lists is None:
        if split is None:
            return None
        raise UserError(
            f"{root}: there is no split '{split}', because no {_LISTS_FOLDER} was found in this "
            "folder or beside it",
            f"Download {_LISTS_ARCHIVE}.zip from https://www.crcv.ucf.edu/data/UCF101.php and "
            "unpack it there, or use --split group.",
        )
    return choose_number(root, _list_files(lists), split)


def _class_names(lists: Path | None) -> dict[str, str]:
    """Case-folded class name to the spelling of ``classInd.txt``."""
    try:
        lines = read_lines(lists / "classInd.txt") if lists else []
    except UserError:
        return {}  # the lists work without it
    return {words[-1].casefold(): words[-1] for words in map(str.split, lines)}


def _read_lists(lists: Path, number: str, problems: list[str]) -> dict[str, tuple[str, str]]:
    """Case-folded stem of each listed file to its part and its name as listed."""
    listed: dict[str, tuple[str, str]] = {}
    both = 0
    for part, file in zip(("train", "test"), _list_files(lists)[number], strict=True):
        for line in read_lines(file):
            name = re.sub(r"\s+\d+$", "", line).replace("\\", "/").rpartition("/")[2]
            both += _key(name) in listed and listed[_key(name)][0] != part
            listed[_key(name)] = (part, name)
    if both:
        problems.append(f"{both} clips are on the train and on the test list: taken as test")
    return listed


def _read_clips(
    root: Path,
    names: dict[str, str],
    listed: dict[str, tuple[str, str]],
    problems: list[str],
) -> list[Clip]:
    clips: dict[str, Clip] = {}
    unread: list[InputError] = []
    misnamed: list[str] = []
    twice: list[str] = []
    spellings = dict(names)
    for path in walk_videos(root, unread):
        match = _NAME.fullmatch(path.stem)
        key = _key(path.name)
        if match is None:
            misnamed.append(path.name)
        elif key in clips:
            twice.append(path.name)
        else:
            folder, folded = path.parent.name, match["label"].casefold()
            spelling = folder if folder.casefold() == folded else match["label"]
            label = spellings.setdefault(folded, spelling)
            group = f"{label}/{match['group'].lower()}"
            part, _ = listed.get(key, (None, None))
            clips[key] = Clip(path, label, group, part)
    report(problems, misnamed, "videos not named v_<class>_gNN_cMM were left out")
    report(problems, twice, "clips are there twice under one name: the first was taken")
    problems += [error.message for error in unread]
    return list(clips.values())


def _compare_with_lists(
    clips: list[Clip], listed: dict[str, tuple[str, str]], problems: list[str]
) -> None:
    present = {_key(clip.path.name) for clip in clips}
    missing = [name for key, (_, name) in listed.items() if key not in present]
    report(problems, missing, "listed clips are missing")
    unlisted = [clip.path.name for clip in clips if clip.split is None]
    report(problems, unlisted, "clips are on no list and belong to no part of the split")


def _key(name: str) -> str:
    return Path(name).stem.casefold()
