"""Helpers of the layouts that know a dataset by its file names and its official lists."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vidfuse.data.files import peek_videos
from vidfuse.data.layouts import list_files, split_folders

_SAMPLE = 10


def names_follow(root: Path, matches: Callable[[Path], bool]) -> bool:
    """Check that all of a few clips below ``root`` are named in a certain way."""
    sample = peek_videos(root, _SAMPLE)
    return bool(sample) and all(map(matches, sample))


def has_other_split(root: Path) -> bool:
    """Look for a split that folders or list files of the user's own declare.

    It wins over what file names alone can tell.
    """
    return split_folders.recognise(root) or list_files.recognise(root)


def nearby(root: Path) -> list[Path]:
    """Folders where the lists of a dataset in ``root`` may lie: in it, or beside it."""
    return list(dict.fromkeys((root, Path(os.path.abspath(root)).parent, root.resolve().parent)))
