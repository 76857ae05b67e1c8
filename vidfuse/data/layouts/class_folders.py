"""One folder of videos per class: ``root/<class>/**/<video>``."""

from __future__ import annotations

import os
from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.files import is_ignored, is_video, natural_key, peek_videos, walk_videos
from vidfuse.data.layouts.common import part_of
from vidfuse.errors import InputError

_PEEKED_FOLDERS = 50


def recognise(root: Path) -> bool:
    """Check that a subfolder holds a video, and subfolders are not train and test parts."""
    if not root.is_dir():
        return False
    folders = subfolders(root)
    parts = {part_of(folder.name) for folder in folders}
    if len(parts) > 1 and parts <= {"train", "val", "test", None} and "train" in parts:
        # Videos straight in train/ and test/: reading "train" as a class would be wrong.
        return any(peek_videos(f) for f in folders[:_PEEKED_FOLDERS] if part_of(f.name) is None)
    return any(peek_videos(folder) for folder in folders[:_PEEKED_FOLDERS])


def read(root: Path, split: str | None) -> Dataset:
    """Read every subfolder as a class; there are no groups and there is no split."""
    clips, problems = read_class_folders(root)
    classes = {clip.label for clip in clips}
    if len(classes) == 1:
        (only,) = classes
        inner = [f for f in subfolders(root / str(only)) if peek_videos(f)]
        if len(inner) > 1 and not any(is_video(name) for name in os.listdir(root / str(only))):
            problems.append(
                f"all videos are in the one folder '{only}', which has {len(inner)} folders of "
                f"its own: if these are the classes, give {root / str(only)}"
            )
    return Dataset(root, "class-folders", clips, problems=problems)


def read_class_folders(root: Path, split: str | None = None) -> tuple[list[Clip], list[str]]:
    """The clips in the class folders of ``root``, and what was found wrong.

    Args:
        root: The folder that holds the class folders.
        split: The part to which all these clips belong.
    """
    clips: list[Clip] = []
    problems: list[str] = []
    unread: list[InputError] = []
    for folder in subfolders(root):
        before = len(clips)
        try:
            clips += (Clip(path, folder.name, None, split) for path in walk_videos(folder, unread))
        except InputError as error:
            unread.append(error)
            continue
        if len(clips) == before:
            problems.append(f"{folder}: no video in this folder, so no class was made of it")
    loose = sum(is_video(name) and not is_ignored(name) for name in os.listdir(root))
    if loose:
        problems.append(f"{root}: {loose} videos outside any class folder were left out")
    return clips, problems + [error.message for error in unread]


def has_loose_videos(root: Path) -> bool:
    """True where videos lie beside the class folders."""
    return any(is_video(name) and not is_ignored(name) for name in os.listdir(root))


def subfolders(root: Path) -> list[Path]:
    """The visible folders in ``root``, in natural order; none where it cannot be read."""
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return [root / name for name in sorted(names, key=natural_key) if not is_ignored(name)]
