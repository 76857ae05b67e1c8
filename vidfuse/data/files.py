"""Finding videos: in a folder, behind a glob, or listed on standard input."""

from __future__ import annotations

import glob
import os
import re
import stat
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from vidfuse.data.multipage import DICOM_EXTENSIONS, is_dicom, is_multipage
from vidfuse.errors import InputError, reason_of

_VIDEOS = """
    264 265 3g2 3gp amv asf avi divx dv f4v flv gif h264 h265 hevc ivf m1v m2ts m2v m4v mjpeg mjpg
    mkv mov mp4 mpe mpeg mpg mpv mts mxf nut obu ogm ogv qt rm rmvb ts vob webm wmv wtv y4m
"""
_FRAMES = "bmp jpeg jpg png ppm tif tiff webp"

VIDEO_EXTENSIONS = DICOM_EXTENSIONS | {f".{name}" for name in _VIDEOS.split()}
"""Suffixes (lower case) by which a file found in a folder is taken for a video."""

FRAME_EXTENSIONS = frozenset(f".{name}" for name in _FRAMES.split())
"""Suffixes (lower case) of the frames that make up a frame folder."""

BINARY = getattr(os, "O_BINARY", 0)  # which only Windows has

_SYSTEM_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"})
_SINGLE = "one frame alone in a folder is no clip, unless the folder is named itself"
_BLOCK = 2**16  # bytes read from a list at once, at most
_PEEKED_FRAMES = 8  # of a folder of TIFF or DICOM files, whether they are sequences themselves
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Sorting key that puts ``clip2`` before ``clip10``."""
    parts = _DIGITS.split(text.casefold())  # every second part is a number
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text


def is_ignored(name: str) -> bool:
    """True if a file or folder name is hidden or left there by an operating system."""
    return name.startswith(".") or name in _SYSTEM_NAMES


def is_video(path: str | os.PathLike[str]) -> bool:
    """True if the path has the suffix of a video; the file is not opened."""
    return os.path.splitext(path)[1].lower() in VIDEO_EXTENSIONS


def is_frame_folder(folder: str | os.PathLike[str]) -> bool:
    """True if a folder is a clip stored as frames: at least two, no video, no subfolder.

    DICOM files of one frame each are such frames; files that hold sequences of their own (TIFF
    with pages, DICOM with frames) are clips, so a folder of them is not one.
    """
    try:
        return _holds_frames(_list_folder(folder))
    except OSError:
        return False


def is_single_frame(folder: str | os.PathLike[str]) -> bool:
    """True if a folder holds one frame and nothing else.

    It may be a clip of one frame or the place of a thumbnail, so it is a clip only where it is
    named itself.
    """
    try:
        return _holds_one_frame(_list_folder(folder))
    except OSError:
        return False


def describe_os_error(error: OSError) -> str:
    """A short reason for a failed file operation, without the path."""
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    return reason_of(error).lower()


def read_head(path: str | os.PathLike[str], size: int) -> bytes:
    """The first bytes of a regular file; none of one that is missing or of another kind.

    A pipe is not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY)
    except (OSError, ValueError):
        return b""
    with os.fdopen(descriptor, "rb") as file:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return file.read(size) if regular else b""


def walk_videos(
    folder: str | os.PathLike[str],
    problems: list[InputError] | None = None,
    *,
    growing: bool = False,
) -> Iterator[Path]:
    """Every video below a folder, in natural order; links are followed, loops are not.

    A subfolder of frames (see ``is_frame_folder``) counts as one video. One with a single frame
    does not, and is told where other folders of frames are clips or where there is no clip.

    Args:
        folder: Where to start.
        problems: Receives broken links and subfolders that cannot be read.
        growing: Whether files still come, so that a frame alone may be the first of several.

    Yields:
        Paths that begin with ``folder``.

    Raises:
        InputError: ``folder`` itself cannot be read.
    """
    top = os.fspath(folder)
    problems = [] if problems is None else problems
    visited: set[tuple[int, int]] = set()
    pending: list[tuple[str, bool]] = [(top, True)]
    single: list[str] = []
    videos = frame_folders = 0
    while pending:
        path, is_folder = pending.pop()
        if not is_folder:
            videos += 1
            yield Path(path)
            continue
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = _list_folder(path)
        except OSError as error:
            problem = InputError(path, describe_os_error(error))
            if path == top:
                raise problem from None
            problems.append(problem)
            continue
        if path != top and _holds_frames(entries):
            frame_folders += 1
            yield Path(path)
            continue
        if path != top and _holds_one_frame(entries):
            single.append(path)
            continue
        pending += reversed(_inside(entries, path, problems))
    if (frame_folders or not videos) and not growing:
        problems += [InputError(path, _SINGLE) for path in single]


def _inside(
    entries: Iterable[os.DirEntry[str]], folder: str, problems: list[InputError]
) -> list[tuple[str, bool]]:
    """Subfolders and videos among the entries of a folder, True for a subfolder."""
    inside: list[tuple[str, bool]] = []
    for entry in entries:
        if os.path.isdir(entry):
            if not _leads_back(entry, folder):
                inside.append((entry.path, True))
        elif is_video(entry.name) or is_multipage(entry.path):
            if os.path.isfile(entry):
                inside.append((entry.path, False))
            else:
                reason = "not a regular file" if os.path.exists(entry) else "broken link"
                problems.append(InputError(entry.path, reason))
    return inside


def peek_videos(folder: str | os.PathLike[str], count: int = 1, limit: int = 5000) -> list[Path]:
    """Up to ``count`` videos from below a folder, in no order, after looking at few entries.

    Args:
        folder: Where to look.
        count: Stop when so many are found.
        limit: Stop after so many folder entries, whatever was found.

    Returns:
        The paths found; an empty list also where the folder cannot be read.
    """
    found: list[Path] = []
    pending = [os.fspath(folder)]
    while pending and limit > 0:
        path = pending.pop()
        frames = 0
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    limit -= 1
                    if is_ignored(entry.name):
                        continue
                    if os.path.isdir(entry):
                        pending.append(entry.path)
                    elif is_video(entry.name) or is_multipage(entry.path):
                        found.append(Path(entry.path))
                    frames += _is_frame(entry.name)
                    if frames == 2 and path != os.fspath(folder) and is_frame_folder(path):
                        found.append(Path(path))
                    if len(found) >= count or limit <= 0:
                        return found
        except OSError:
            continue
    return found


def expand_inputs(
    arguments: Sequence[str], stdin: TextIO | None = None
) -> Iterator[Path | InputError]:
    """The inputs that command line arguments stand for, as they become known.

    Args:
        arguments: Files, folders (every video inside), globs (``**`` too; an existing file of
            that very name wins) or ``-`` (on ``stdin`` one path per line, or zero bytes between
            them). Repetitions are kept.
        stdin: Where ``-`` reads from, as it comes.

    Yields:
        A path for each input, whether it exists or not, or an ``InputError`` for an argument
        that stands for none (a folder without videos, a glob without matches).
    """
    for argument in arguments:
        if argument == "-":
            yield from _expand_list(stdin)
        elif not argument:
            yield InputError("''", "an empty path", "Check for an unset variable.")
        elif os.path.isdir(argument):
            yield from _expand_folder(argument)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            yield from _expand_glob(argument)
        else:
            yield Path(argument)


def _expand_folder(folder: str) -> Iterator[Path | InputError]:
    if is_frame_folder(folder) or is_single_frame(folder):
        yield Path(folder)
        return
    problems: list[InputError] = []
    empty = True
    try:
        for path in walk_videos(folder, problems):
            empty = False
            yield path
    except InputError as error:
        yield error
        return
    yield from problems
    if empty and not problems:
        yield InputError(folder, "no video in this folder")


def _expand_glob(pattern: str) -> Iterator[Path | InputError]:
    matches = sorted(glob.iglob(pattern, recursive=True), key=natural_key)
    files = [match for match in matches if not os.path.isdir(match)]
    # A pattern such as clips/* is for the videos among the files; clips/*.dat means what it says.
    wanted = set(filter(is_video, files)) or set(files)
    empty = True
    for match in matches:
        if match in wanted:
            empty = False
            yield Path(match)
        elif not os.path.isdir(match):
            continue
        elif is_frame_folder(match):
            empty = False
            yield Path(match)
        elif "**" not in pattern and next(walk_videos(match), None) is not None:
            # ** also matches what is inside the folder, so expanding it would repeat files.
            empty = False
            yield from _expand_folder(match)
    if empty:
        yield InputError(pattern, "no video matches this pattern")


def _expand_list(stdin: TextIO | None) -> Iterator[Path | InputError]:
    empty = True
    number = 0
    try:
        for path in _names(_as_it_comes(stdin)):
            number += 1
            if not path.strip():
                continue
            empty = False
            if os.path.isdir(path):
                yield from _expand_folder(path)
            else:
                yield Path(path)
    except UnicodeDecodeError as error:
        # The text layer cannot go on behind a byte that it could not read.
        reason = f"standard input is not {error.encoding} text after line {number}"
        yield InputError("-", reason, "The paths after that line were not read.")
        return
    if empty:
        yield InputError("-", "no paths on standard input")


def _as_it_comes(stream: TextIO | None) -> Iterator[str]:
    """The text of a stream in parts, without waiting for the end of a line or of a block."""
    if stream is None:
        return
    raw = getattr(stream, "buffer", None)
    if raw is None:  # text in memory
        yield stream.read()
        return
    read = getattr(raw, "read1", raw.read)
    decoder = getincrementaldecoder(stream.encoding)(stream.errors or "strict")
    while part := read(_BLOCK):
        yield decoder.decode(part)
    yield decoder.decode(b"", final=True)


def _names(parts: Iterable[str]) -> Iterator[str]:
    """The names in a list: lines, or divided by zero bytes as ``find -print0`` writes them.

    From the first zero byte on, only zero bytes divide: a name may have a line break in it, and no
    name a zero byte.
    """
    rest, zeros, begun = "", False, False
    for part in parts:
        rest += part
        if not begun:
            rest = rest.removeprefix("\ufeff")
            begun = bool(rest)
        zeros = zeros or "\0" in part
        *names, rest = rest.split("\0" if zeros else "\n")
        yield from names if zeros else (name.removesuffix("\r") for name in names)
    if rest:
        yield rest


def _list_folder(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(os.fspath(folder)) as entries:
        kept = [entry for entry in entries if not is_ignored(entry.name)]
    return sorted(kept, key=lambda entry: natural_key(entry.name))


def _is_frame(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in FRAME_EXTENSIONS or is_dicom(name)


def _holds_frames(entries: list[os.DirEntry[str]]) -> bool:
    frames = []
    for entry in entries:
        if os.path.isdir(entry) or (is_video(entry.name) and not is_dicom(entry.name)):
            return False
        if _is_frame(entry.name):
            frames.append(entry.path)
    step = len(frames) // _PEEKED_FRAMES + 1
    return len(frames) >= 2 and not any(map(is_multipage, frames[::step]))


def _holds_one_frame(entries: list[os.DirEntry[str]]) -> bool:
    if len(entries) != 1 or is_video(entries[0].name) or not _is_frame(entries[0].name):
        return False
    return os.path.isfile(entries[0]) and not is_multipage(entries[0].path)


def _leads_back(entry: os.DirEntry[str], folder: str) -> bool:
    # A link up the tree would bring in the whole dataset a second time, under a wrong class.
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path).rstrip(os.sep) + os.sep
    return (os.path.realpath(folder) + os.sep).startswith(target)
