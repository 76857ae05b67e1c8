"""Folders for the parts of the split, class folders within: ``root/train/<class>/<video>``."""

from __future__ import annotations

from pathlib import Path

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import class_folders
from vidfuse.data.layouts.common import part_of
from vidfuse.errors import UserError


def recognise(root: Path) -> bool:
    """Look for a train folder with class folders, and no doubt that it is a part."""
    parts = _part_folders(root)
    train = [folder for folder in parts if part_of(folder.name) == "train"]
    if not any(class_folders.recognise(folder) for folder in train):
        return False
    # Beside folders such as "plane" and "bus", a lone "train" is a class.
    return len(parts) > len(train) or len(class_folders.subfolders(root)) == len(parts)


def read(root: Path, split: str | None) -> Dataset:
    """Read the class folders of every part.

    Raises:
        UserError: There is no train folder, or a numbered split was asked for.
    """
    folders = _part_folders(root)
    if not any(part_of(folder.name) == "train" for folder in folders):
        raise UserError(
            f"{root}: the layout split-folders needs a folder 'train'",
            "Beside it, 'val' and 'test' are read where they exist.",
        )
    clips: list[Clip] = []
    problems: list[str] = []
    for folder in sorted(folders, key=lambda f: ("train", "val", "test").index(_part(f))):
        found, wrong = class_folders.read_class_folders(folder, _part(folder))
        clips += found
        problems += wrong
    names = ", ".join(dict.fromkeys(clip.path.relative_to(root).parts[0] for clip in clips))
    problems += _lonely_classes(clips)
    return Dataset(root, "split-folders", clips, f"folders {names}", problems)


def _part_folders(root: Path) -> list[Path]:
    return [f for f in class_folders.subfolders(root) if part_of(f.name) is not None]


def _part(folder: Path) -> str:
    return part_of(folder.name) or ""


def _lonely_classes(clips: list[Clip]) -> list[str]:
    parts: dict[str | None, set[str | None]] = {}
    for clip in clips:
        parts.setdefault(clip.label, set()).add(clip.split)
    if len(set().union(*parts.values())) < 2:
        return []
    problems = []
    for label, seen in sorted(parts.items(), key=lambda item: str(item[0])):
        if len(seen) == 1:
            (part,) = seen
            problems.append(f"class '{label}' is in {part} only")
        elif "train" not in seen:
            problems.append(f"class '{label}' is in val and test, but not in train")
    return problems
