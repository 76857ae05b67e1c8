"""Pairing of timelines with each other, and with their videos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from vidfuse.data.files import describe_os_error, is_frame_folder, is_ignored, is_video
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines import FORMATS, Annotations, read_timelines
from vidfuse.errors import InputError, UserError

Item = TypeVar("Item")
LOSES_EMPTY = ("csv", "boris-events")
"""Formats in whose files a video without segments does not occur."""
_SUFFIXES = {suffix for each in FORMATS.values() if each.readable for suffix in each.suffixes}


def read_annotations(path: Path, *, fps: float | None = None) -> Annotations:
    """Read a file of annotations, or all such files in a folder; every timeline gets a path.

    A timeline that names no video has the name of its file, without the suffix.

    Args:
        path: The file or folder.
        fps: Frames per second of the videos, for formats that count frames.

    Raises:
        UserError: A file cannot be read or understood, there is none, nothing is in it, or a video
            occurs twice.
    """
    files = annotation_files(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no file of annotations in it", "Check the path.")
    timelines: list[Timeline] = []
    problems: list[str] = []
    formats: list[str] = []
    for file in files:
        found = read_timelines(file, fps=fps)
        timelines += [replace(each, path=each.path or Path(file.stem)) for each in found.timelines]
        problems += found.problems
        formats.append(found.format)
    if not timelines:
        raise UserError(f"{path}: there are no timelines in it", *problems[:1])
    counts = Counter(str(each.path) for each in timelines)
    name, most = counts.most_common(1)[0]
    if most > 1:
        raise UserError(
            f"{path}: there are {most} timelines of {name}",
            "Keep one of each video, such as that of one annotator, and measure them one by one.",
        )
    lossy = next((name for name in formats if name in LOSES_EMPTY), formats[0])
    return Annotations(timelines, problems, lossy)


def annotation_files(folder: Path) -> list[Path]:
    """The files of a folder that are annotations by their suffix, sorted.

    Raises:
        UserError: The folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: {describe_os_error(error)}", "Check the path.") from None
    return [folder / n for n in names if Path(n).suffix.lower() in _SUFFIXES and not is_ignored(n)]


def find_video(
    path: Path, folder: Path, videos: Sequence[Path] = (), *, alone: bool = False
) -> Path | InputError:
    """The video, or the folder of frames, that annotations are of.

    It is the one of that path among `videos`, else the one of that name, or of that name with
    another suffix; else the file that the annotations name, relative to their folder or to the
    working folder; else the one of that name beside them.

    Args:
        path: As the annotations name it.
        folder: Where these are.
        videos: Those that the user named.
        alone: Whether there is no other timeline, so that the one video that the user named has to
            be the one meant, whatever its name.
    """
    there = [each for each in (folder / path, path) if _holds_video(each)]
    for candidate in there:
        if any(os.path.abspath(each) == os.path.abspath(candidate) for each in videos):
            return candidate
    found = namesake(path, videos, lambda each: each)
    if found is None and there:
        return there[0]
    if found is None:
        beside = [each for each in _listed(folder) if _holds_video(each)]
        found = namesake(path, beside, lambda each: each)
    if found is None and alone and len(videos) == 1:
        return videos[0]
    hint = "Name it, or its folder, behind the annotations."
    return found or InputError(path, "there is no such video, nor one of that name", hint)


def _holds_video(path: Path) -> bool:
    return (is_video(path) and path.exists()) or is_frame_folder(path)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def namesake(
    path: Path, others: Iterable[Item], path_of: Callable[[Item], Path]
) -> Item | InputError | None:
    """The one thing of the same path, else of the same name, else of the same without the suffix.

    Args:
        path: Of one.
        others: Among which the other is.
        path_of: Their paths.

    Returns:
        None where there is none; an error where there are several.
    """
    known = list(others)
    for name_of in (str, _name, _stem):
        found = [each for each in known if name_of(path_of(each)) == name_of(path)]
        if len(found) > 1:
            names = ", ".join(str(path_of(each)) for each in found[:3])
            return InputError(path, f"several have that name: {names}", "Name the right one only.")
        if found:
            return found[0]
    return None


def _name(path: Path) -> str:
    return PureWindowsPath(path).name  # which takes both kinds of slashes


def _stem(path: Path) -> str:
    name = PureWindowsPath(path)
    return name.stem if is_video(name.name) else name.name
