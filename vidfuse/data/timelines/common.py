"""Common parts of readers and writers of annotations: segments, problems, lanes, numbers."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Segment, Timeline, in_order
from vidfuse.errors import UserError

LONGEST = 1e9
"""Seconds beyond which a number is taken for no time (some 30 years)."""

TIER = "vidfuse"
"""Name of the tier of segments without one, where a format needs a name."""

_SHOWN = 80  # characters of a wrong value in a message


@dataclass(frozen=True, slots=True)
class Source:
    """A file of annotations, read.

    Attributes:
        file: Where it is, for messages.
        text: All of it.
        fps: Frames per second that the user gave, for formats that count frames.
        problems: What was left out and why, added to while it is read.
    """

    file: Path
    text: str
    fps: float | None = None
    problems: list[str] = field(default_factory=list)

    def report(self, where: str | int, reason: object) -> None:
        """Add a problem at a line (a number) or at another place of the file."""
        place = f"line {where}" if isinstance(where, int) else where
        self.problems.append(f"{self.file.name}, {place}: {reason}")

    def refuse(self, reason: str, hint: str) -> UserError:
        """The error of a file that cannot be understood as a whole."""
        return UserError(f"{self.file}: {reason}", hint)


def make_segment(
    start: object,
    end: object,
    label: object,
    score: object = None,
    tier: object = None,
) -> Segment:
    """A segment of checked values, as text or as numbers.

    Raises:
        BadRowError: A time is no time, the end is before the start, there is no label, or another
            value is none that a segment can have.
    """
    begin, stop = seconds(start, "start"), seconds(end, "end")
    if stop < begin:
        raise BadRowError(f"end {stop:g} is before start {begin:g}")
    name = clean_text(label, "label")
    if not name:
        raise BadRowError("there is no label")
    probability = None if score in (None, "") else number(score, "score")
    if probability is not None and not 0 <= probability <= 1:
        raise BadRowError(f"score is not from 0 to 1: {_show(score)}")
    return Segment(begin, stop, name, probability, clean_text(tier, "tier") or None)


def seconds(value: object, name: str) -> float:
    """A time in seconds.

    Raises:
        BadRowError: It is none: not a number, negative, not finite, or beyond all measure.
    """
    if value in (None, ""):
        raise BadRowError(f"{name} is empty")
    result = number(value, name)
    if not 0 <= result <= LONGEST:
        raise BadRowError(f"{name} is not a time in seconds: {_show(value)}")
    return result + 0.0  # -0.0 is 0


def number(value: object, name: str) -> float:
    """A finite number, from a number or from text.

    Raises:
        BadRowError: It is none.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        result = float(value)
        if not math.isfinite(result):
            raise ValueError
    except (ValueError, OverflowError):
        raise BadRowError(f"{name} is not a number: {_show(value)}") from None
    return result


def positive(value: object) -> float | None:
    """A number above 0 (a duration, a rate), None for whatever else is found in its place."""
    try:
        result = number(value, "")
    except BadRowError:
        return None
    return result if 0 < result <= LONGEST else None


def clean_text(value: object, name: str) -> str:
    """A text on one line, with single spaces in it and none around it.

    Raises:
        BadRowError: It is not text, or holds characters that are none.
    """
    return checked_text(value, name, single_spaces=True)


def checked_text(value: object, name: str, *, single_spaces: bool = False) -> str:
    """A text without spaces around it; empty for None.

    Raises:
        BadRowError: It is not text, or holds characters that are none.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRowError(f"{name} is not text: {_show(value)}")
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes
        raise BadRowError(f"{name} is too large a number") from None
    text = " ".join(text.split()) if single_spaces else text.strip()
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise BadRowError(f"{name} holds control characters: {_show(text)}")
    return text


def path_of(name: object) -> Path | None:
    """The video that a cell names, None for an empty cell.

    Raises:
        BadRowError: It is not text, or no path.
    """
    text = checked_text(name, "path")
    return Path(text) if text else None


def timeline(
    path: Path | None,
    segments: Iterable[Segment],
    duration: float | None = None,
    fps: float | None = None,
    group: str | None = None,
) -> Timeline:
    """A timeline with its segments in order."""
    return Timeline(path, in_order(segments), duration, fps, group)


def length_of(video: Timeline) -> float:
    """Seconds up to the end of the video, or of the last segment where that is not known."""
    return max([video.duration or 0.0, *(each.end for each in video.segments)])


def divide_into_lanes(segments: Iterable[Segment]) -> list[list[Segment]]:
    """Spread segments over as few lists as needed, none with two that overlap.

    Two point events at one time overlap, too.

    Args:
        segments: By start.
    """
    lanes: list[list[Segment]] = []
    for each in segments:
        for lane in lanes:
            last = lane[-1]
            if last.end <= each.start and last.start < each.start:
                lane.append(each)
                break
        else:
            lanes.append([each])
    return lanes


def lanes_by_tier(segments: Sequence[Segment]) -> dict[str, list[Segment]]:
    """Segments that do not overlap, by the name of their tier.

    What overlaps in a tier NAME goes to ``NAME 2``, ``NAME 3``, …; segments without a tier are in
    that of vidfuse.

    Args:
        segments: By start.
    """
    tiers: dict[str, list[Segment]] = {}
    for each in segments:
        tiers.setdefault(each.tier or TIER, []).append(each)
    lanes: dict[str, list[Segment]] = {}
    for name, inside in tiers.items():
        first, *others = divide_into_lanes(inside)
        lanes[name] = first
        for lane in others:
            lanes[free_name(name, {*tiers, *lanes})] = lane
    return lanes


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name, or with the lowest number behind it that makes it another than those taken."""
    known = set(taken)
    free, count = name, 1
    while free in known:
        count += 1
        free = f"{name} {count}"
    return free


def milliseconds(time: float) -> int:
    """A time in whole milliseconds; what is in order stays in order."""
    return round(time * 1000)


def at_least_one(start: int, end: int) -> int:
    """The end of an interval where the format has none without length."""
    return max(end, start + 1)


def decimal(value: float, digits: int = 6) -> str:
    """A number without an exponent and without zeros at its end."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"


def load_json(source: Source) -> object:
    """The content of a file with one JSON value.

    Raises:
        UserError: It is none.
    """
    try:
        return json.loads(source.text)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}: not JSON ({error.msg})"
    except (ValueError, RecursionError) as error:  # numbers, or depth, beyond all measure
        reason = f"not JSON that can be read ({error})"
    raise source.refuse(reason, "Export it again.")


def mapping(value: object) -> Mapping[str, object]:
    """A JSON object; an empty one for whatever else is found in its place."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[object]:
    """A JSON array; an empty one for whatever else is found in its place."""
    return value if isinstance(value, list) else []


def _show(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
