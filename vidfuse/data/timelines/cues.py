"""Cues of subtitles, which WebVTT and SRT share: times, blocks, a label with its score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import at_least_one, make_segment, milliseconds

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?", re.ASCII)
_SCORE = re.compile(r"(.*\S) \(([01]\.\d{2,})\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that stand together.

    Attributes:
        line: Number of the first one.
        lines: All of them.
    """

    line: int
    lines: list[str]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a file, which blank lines divide."""
    together: list[str] = []
    number = 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.strip():
            together.append(line)
        elif together:
            yield Block(number - len(together), together)
            together = []
    if together:
        yield Block(number - len(together) + 1, together)


def is_timing(line: str) -> bool:
    """True where a line is the times of a cue, or was meant to be."""
    return "-->" in line


def read_cue(block: Block) -> Segment:
    """The segment of a block with a cue; its label is the text as it stands there.

    Args:
        block: An identifier or number, if any, then the times, then the text.

    Raises:
        BadRowError: It is none.
    """
    at = next((i for i, line in enumerate(block.lines[:2]) if is_timing(line)), None)
    if at is None:
        raise BadRowError(f"no times of a cue: {block.lines[0][:80]}")
    match = _TIMING.fullmatch(block.lines[at])
    if match is None:
        raise BadRowError(f"the times of a cue cannot be read: {block.lines[at][:80]}")
    parts = match.groups()
    return make_segment(_seconds(parts[:4]), _seconds(parts[4:]), "\n".join(block.lines[at + 1 :]))


def with_text(segment: Segment, text: str) -> Segment:
    """The segment with a label, and the score behind it in brackets: ``jump (0.93)``.

    Raises:
        BadRowError: There is no label.
    """
    match = _SCORE.fullmatch(text.strip())
    label, score = (match[1], match[2]) if match and float(match[2]) <= 1 else (text, None)
    return make_segment(segment.start, segment.end, label, score)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    if len(hours or "") > 9 or int(minutes or 0) > 59 or int(seconds or 0) > 59:
        raise BadRowError(f"no time: {':'.join(part or '' for part in parts[:3])[:80]}")
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole + int((fraction or "").ljust(3, "0")) / 1000


def text_of(segment: Segment) -> str:
    """The text of a cue: the label, and the score in brackets."""
    return segment.label if segment.score is None else f"{segment.label} ({segment.score:.2f})"


def timings(video: Timeline, separator: str) -> Iterator[tuple[str, Segment]]:
    """The times of each segment's cue, at least a millisecond apart."""
    for each in video.segments:
        start = milliseconds(each.start)
        end = at_least_one(start, milliseconds(each.end))
        yield f"{_timestamp(start, separator)} --> {_timestamp(end, separator)}", each


def _timestamp(milliseconds: int, separator: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{separator}{rest:03}"
