"""Files of annotations: a table of formats, each one file with the same functions.

A format module has ``write(timelines, file) -> str`` and, if it can be read,
``recognise(text) -> bool``, which sees the beginning of a file, and
``read(source) -> list[Timeline]``, which leaves out what cannot be used and reports it. To add one,
write the file and put it in ``FORMATS``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from vidfuse.atomic import write_whole
from vidfuse.data.files import describe_os_error, is_video, read_head
from vidfuse.data.tables import BadRowError, read_text
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines.common import (
    Source,
    clean_text,
    make_segment,
    path_of,
    timeline,
)
from vidfuse.errors import UnknownNameError, UserError

_HEAD = 65536  # characters by which a format is recognised


@dataclass(frozen=True, slots=True)
class Format:
    """A line of the table.

    Attributes:
        module: Its name in this package.
        suffixes: Of its files, in lower case; new files get the first.
        several: Whether one file holds several videos, and so names them.
        readable: Whether it is read, too.
    """

    module: str
    suffixes: tuple[str, ...]
    several: bool = False
    readable: bool = True


FORMATS: dict[str, Format] = {
    "jsonl": Format("jsonl", (".jsonl", ".ndjson"), several=True),
    "csv": Format("table", (".csv", ".tsv"), several=True),
    "webvtt": Format("webvtt", (".vtt",)),
    "srt": Format("srt", (".srt",)),
    "audacity": Format("audacity", (".txt",)),
    "text": Format("text", (".txt",), several=True, readable=False),
    "textgrid": Format("textgrid", (".textgrid",)),
    "eaf": Format("eaf", (".eaf",)),
    "boris-events": Format("boris_events", (".tsv", ".csv"), several=True),
    "boris": Format("boris", (".boris",), several=True),
    "label-studio": Format("label_studio", (".json",), several=True),
}
"""Name of each format; of those with a suffix in common, the first is the one without a name."""


class FormatModule(Protocol):
    """The interface of a format's module."""

    def recognise(self, text: str) -> bool:
        """Check that a file with this beginning is of the format."""

    def read(self, source: Source) -> list[Timeline]:
        """The timelines of the file.

        Raises:
            UserError: It cannot be understood as a whole.
        """

    def write(self, timelines: Sequence[Timeline], file: Path) -> str:
        """The text of the file; a format that holds one video gets one."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The content of a file of annotations.

    Attributes:
        timelines: One per video, or per video and annotator.
        problems: What was left out and why, with file and line.
        format: The name of its format.
    """

    timelines: list[Timeline]
    problems: list[str] = field(default_factory=list)
    format: str = ""


def load_format(name: str) -> FormatModule:
    """The module of a format.

    Raises:
        UnknownNameError: There is no such format.
    """
    if name not in FORMATS:
        raise UnknownNameError("format of annotations", name, FORMATS)
    return cast(FormatModule, import_module(f"{__name__}.{FORMATS[name].module}"))


def read_timelines(
    path: str | os.PathLike[str], *, format: str | None = None, fps: float | None = None
) -> Annotations:
    """Read a file of annotations.

    Args:
        path: The file.
        format: One of ``FORMATS``; None finds it by the suffix and the beginning of the file.
        fps: Frames per second of the videos, for formats that count frames.

    Raises:
        UserError: The file cannot be read, is of no known format, or cannot be understood.
    """
    file = Path(path)
    if format is not None:
        load_format(format)
        if not FORMATS[format].readable:
            raise UserError(f"{file}: the format '{format}' is for people; it is not read")
    candidates = [format] if format else _formats_of(file, readable=True)
    if not candidates:
        hint = "To classify a video, use `vidfuse predict`." if is_video(file) else _known(True)
        raise UserError(f"{file}: not the suffix of a file of annotations", hint)
    _check_file(file)
    source = Source(file, read_text(file), fps)
    head = source.text[:_HEAD]
    found = next((name for name in candidates if load_format(name).recognise(head)), candidates[0])
    return Annotations(load_format(found).read(source), source.problems, found)


def write_timelines(
    timelines: Sequence[Timeline],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
) -> None:
    """Write a file of annotations, whole or not at all.

    Args:
        timelines: Of the videos; one for a format that holds one video.
        path: The file; an existing one is replaced.
        format: One of ``FORMATS``; None is that of the suffix.

    Raises:
        UserError: There is no such format, it cannot hold the videos in one file, or a segment has
            values that none can have.
        UnwritableError: The file cannot be written.
    """
    target = Path(path)
    name = format_of(target, format)
    module = load_format(name)
    if len(timelines) != 1 and not FORMATS[name].several:
        raise one_video_only(target, name, len(timelines))
    write_whole(target, module.write([checked(each) for each in timelines], target))


def one_video_only(path: Path, name: str, count: int) -> UserError:
    """The error of a file that several videos do not go into."""
    several = ", ".join(name for name, about in FORMATS.items() if about.several)
    return UserError(
        f"{path}: a file of the format '{name}' holds one video, and there are {count}",
        f"Give a folder (a name with / at its end), or another format: {several}.",
    )


def format_of(path: Path, format: str | None = None) -> str:
    """The format in which annotations are written to a path.

    Args:
        path: The file.
        format: One of ``FORMATS``; None is that of the suffix.

    Raises:
        UserError: There is no such format, or none of that suffix.
    """
    if format is not None:
        load_format(format)
        return format
    found = next(iter(_formats_of(path)), None)
    if found is None:
        hint = f"Name the format: --out-format. {_known(False)}"
        raise UserError(f"{path}: not the suffix of a file of annotations", hint)
    return found


def _formats_of(file: Path, *, readable: bool = False) -> list[str]:
    suffix = file.suffix.lower()
    return [
        name
        for name, about in FORMATS.items()
        if suffix in about.suffixes and (about.readable or not readable)
    ]


def _known(readable: bool) -> str:
    known = (
        f"{name} ({', '.join(about.suffixes)})"
        for name, about in FORMATS.items()
        if about.readable or not readable
    )
    return f"Known formats: {', '.join(known)}."


def _check_file(file: Path) -> None:
    try:
        if file.is_dir():
            raise UserError(f"{file}: a folder", "Give a file of annotations in it.")
        file.stat()
    except OSError as error:
        raise UserError(f"{file}: {describe_os_error(error)}", "Check the path.") from None
    except ValueError:  # a name with a zero byte
        raise UserError(f"{str(file)!r}: no name of a file", "Check the path.") from None
    if not file.is_file():
        raise UserError(f"{file}: not a regular file", "Give a file of annotations.")
    head = read_head(file, 4096)
    if b"\0" in head and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{file}: not text", "Give a file of annotations.")


def checked(video: Timeline) -> Timeline:
    """The timeline as it is written: with its segments in order and its texts on one line.

    Raises:
        UserError: A value is none that a segment can have.
    """
    try:
        path = path_of(None if video.path is None else str(video.path))
        group = clean_text(video.group, "group") or None
        segments = [
            make_segment(each.start, each.end, each.label, each.score, each.tier)
            for each in video.segments
        ]
    except BadRowError as error:
        raise UserError(f"annotations of {str(video.path)!a} cannot be written: {error}") from None
    return timeline(path, segments, video.duration, video.fps, group)
