"""Reading a dataset: a table of layouts, each one file with the same two functions.

A layout module has ``recognise(root) -> bool``, which must be quick on a large tree, and
``read(root, split) -> Dataset``. To add one, write the file and put it in ``LAYOUTS``.
"""

from __future__ import annotations

import os
from collections import deque
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from vidfuse.data.clip import Dataset
from vidfuse.data.files import describe_os_error, is_ignored, is_video, walk_videos
from vidfuse.data.layouts import class_folders
from vidfuse.errors import InputError, UnknownNameError, UserError

LAYOUTS: dict[str, str] = {
    "manifest": "vidfuse.data.layouts.manifest",
    "kinetics": "vidfuse.data.layouts.kinetics",
    "ucf101": "vidfuse.data.layouts.ucf101",
    "hmdb51": "vidfuse.data.layouts.hmdb51",
    "kth": "vidfuse.data.layouts.kth",
    "list-files": "vidfuse.data.layouts.list_files",
    "split-folders": "vidfuse.data.layouts.split_folders",
    "class-folders": "vidfuse.data.layouts.class_folders",
}
"""Name of each layout and its module, in the order in which they are tried."""

PLAINEST = "class-folders"
"""The layout that nearly any tree of videos looks like."""

_RULES = ("auto", "group", "random")  # values of --split that name no official list


class Layout(Protocol):
    """The interface of a layout module."""

    def recognise(self, root: Path) -> bool:
        """Check that the folder (or file) looks like this layout, by few of its entries."""

    def read(self, root: Path, split: str | None) -> Dataset:
        """The dataset; ``split`` is the number of an official list, None for the first.

        A layout without numbered lists leaves it unused, and `read_dataset` judges it.
        """


def load_layout(name: str) -> Layout:
    """The layout module of that name.

    Raises:
        UnknownNameError: There is no such layout.
    """
    if name not in LAYOUTS:
        raise UnknownNameError("layout", name, LAYOUTS)
    return cast(Layout, import_module(LAYOUTS[name]))


def recognised_layout(root: Path) -> str | None:
    """Name of the first layout that recognises a folder or file; None where none does."""
    return next((name for name in LAYOUTS if load_layout(name).recognise(root)), None)


def is_tree(root: Path, *, labelled: bool) -> bool:
    """Check that a folder is best read as a tree of videos, although it may have class folders.

    Args:
        root: A dataset, or a folder of videos.
        labelled: Whether classes are of use: then videos beside the class folders tell a tree.
    """
    name = recognised_layout(root)
    if labelled:
        return name == PLAINEST and class_folders.has_loose_videos(root)
    return name == PLAINEST or (name is None and root.is_dir())


def read_dataset(
    path: str | os.PathLike[str], *, layout: str | None = None, split: str | None = None
) -> Dataset:
    """Read which clips a dataset holds, with their labels, groups and official split.

    Args:
        path: The dataset's folder, or a manifest file.
        layout: One of ``LAYOUTS``; None takes the first that recognises the folder.
        split: Number of the official split to read. None, ``auto``, ``group`` and ``random``
            mean the first one, where there is any.

    Returns:
        The dataset, with at least one clip.

    Raises:
        UserError: The path cannot be read as a dataset, or holds no usable clip.
    """
    if layout is not None:
        load_layout(layout)
    root = Path(path)
    _check_readable(root)
    if layout is None:
        layout = next((name for name in LAYOUTS if load_layout(name).recognise(root)), None)
    if layout is None:
        raise UserError(
            f"{root}: not a dataset that vidfuse recognises ({_describe(root)})",
            f"Known layouts: {', '.join(LAYOUTS)}. The simplest is one folder of videos per "
            "class, or a manifest.csv with the columns path,label.",
        )
    number = None if split in _RULES else split
    dataset = load_layout(layout).read(root, number)
    if number is not None and dataset.split_number is None:
        _check_number(dataset, number)
    if not dataset.clips:
        first = "; ".join(dataset.problems[:3]) or "it holds no videos"
        raise UserError(
            f"{root}: no usable clip (layout {layout}): {first}",
            "Check that the path is the dataset's own folder and that its videos are there.",
        )
    return dataset


def _check_readable(root: Path) -> None:
    try:
        if root.is_file():
            if recognised_layout(root) is not None:
                return
            if is_video(root):
                hint = "To classify single videos, use `vidfuse predict`."
            else:
                hint = (
                    "Give the dataset's folder, a manifest ending in .csv, .tsv or .jsonl, or a "
                    ".txt with lines 'path label'."
                )
            raise UserError(f"{root}: a file, and not a manifest or a list of clips", hint)
        if all(is_ignored(name) for name in os.listdir(root)):
            raise UserError(f"{root}: the folder is empty", "Give the folder with the videos.")
    except OSError as error:
        raise UserError(
            f"{root}: {describe_os_error(error)}",
            "Check the path of the dataset and your permission to read it.",
        ) from None


def _check_number(dataset: Dataset, number: str) -> None:
    """Refuse the number of an official split where a dataset has no numbered ones."""
    has_split = any(clip.split for clip in dataset.clips)
    if not (has_split and number == "1"):
        what = "declares one split, number 1" if has_split else "has no official split"
        raise UserError(
            f"{dataset.root}: there is no split '{number}'; this dataset {what}",
            "Use --split auto" + ("." if has_split else ", group or random."),
        )


def _describe(root: Path) -> str:
    with os.scandir(root) as entries:
        kept = [entry for entry in entries if not is_ignored(entry.name)]
    folders = sorted(entry.name for entry in kept if entry.is_dir())
    videos = sum(is_video(entry.name) for entry in kept if not entry.is_dir())
    named = f" ({', '.join(folders[:5])}{', …' if len(folders) > 5 else ''})" if folders else ""
    others = len(kept) - len(folders) - videos
    found = f"found {len(folders)} folders{named}, {videos} videos, {others} other files in it"
    problems: list[InputError] = []
    deque(walk_videos(root, problems), maxlen=0)
    return "; ".join([found, *(problem.message for problem in problems[:1])])
