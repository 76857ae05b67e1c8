"""TextGrid files of Praat, in the long and the short form of text.

Both are one sequence of free-standing numbers, texts in double quotes and flags in angle brackets;
all else is for people (Praat's manual, "TextGrid file formats"). Empty intervals are gaps.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import (
    TIER,
    Source,
    decimal,
    free_name,
    lanes_by_tier,
    length_of,
    make_segment,
    number,
    positive,
    timeline,
)

_TOKEN = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\s|$)|!.*|<(\w+)>(?=\s|$)|(\S+)')
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
_HINT = "In Praat, choose Save as text file."
_UNIT = 6  # decimals of a second


class _Tokens:
    """The numbers, texts and flags of a file, in order."""

    def __init__(self, text: str) -> None:
        self._tokens = self._find(text)
        self._line_ends = list(accumulate(len(line) + 1 for line in text.split("\n")))
        self._at = 0

    @property
    def line(self) -> int:
        """Number of the line of the last one."""
        return bisect_right(self._line_ends, self._at) + 1

    @staticmethod
    def _find(text: str) -> Iterator[tuple[int, str, str]]:
        for match in _TOKEN.finditer(text):
            quoted, flag, bare = match.groups()
            if quoted is not None:
                yield match.start(), "text", quoted.replace('""', '"')
            elif flag is not None:
                yield match.start(), "flag", flag
            elif bare is not None and _NUMBER.fullmatch(bare):
                yield match.start(), "number", bare

    def next(self, kind: str) -> str:
        """The next one, which must be of a kind.

        Raises:
            BadRowError: It is of another, or there is none.
        """
        found = next(self._tokens, None)
        if found is None:
            raise BadRowError("the file ends where it should go on")
        self._at, actual, value = found
        if actual != kind:
            raise BadRowError(f"a {kind} was expected, and there is the {actual} {value[:80]}")
        return value

    def number(self) -> float:
        """The next one as a number."""
        return number(self.next("number"), "a number")


def recognise(text: str) -> bool:
    """Recognise the type of the file and the class of the object."""
    return "ooTextFile" in text[:200] and '"TextGrid"' in text[:400]


def read(source: Source) -> list[Timeline]:
    """Read all tiers as one timeline; points are point events.

    What follows a place where the file breaks off is left out and reported.

    Raises:
        UserError: It is no TextGrid as text.
    """
    if not recognise(source.text):
        raise source.refuse("no TextGrid as text", _HINT)
    tokens = _Tokens(source.text)
    segments: list[Segment] = []
    duration = None
    try:
        tokens.next("text"), tokens.next("text"), tokens.number()
        duration = positive(tokens.number())
        if tokens.next("flag") == "exists":
            for _ in range(_count(tokens)):
                _read_tier(tokens, segments, source)
    except BadRowError as error:
        source.report(tokens.line, f"{error}; the rest was left out")
    return [timeline(None, segments, duration)]


def _count(tokens: _Tokens) -> int:
    count = tokens.number()
    if count != int(count) or count < 0:
        raise BadRowError(f"a count was expected, and there is {count:g}")
    return int(count)


def _read_tier(tokens: _Tokens, segments: list[Segment], source: Source) -> None:
    kind = tokens.next("text")
    if kind not in ("IntervalTier", "TextTier"):
        raise BadRowError(f"unknown kind of tier '{kind[:80]}'")
    name = tokens.next("text")
    tokens.number(), tokens.number()
    for _ in range(_count(tokens)):
        start = tokens.number()
        end = tokens.number() if kind == "IntervalTier" else start
        label = tokens.next("text")
        if not label.strip():
            continue
        try:
            segments.append(make_segment(start, end, label, tier=name))
        except BadRowError as error:
            source.report(tokens.line, error)


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A tier for each tier of one video, in the long form.

    What overlaps goes to further tiers, point events to tiers of points; an unknown duration is the
    end of the last segment. Scores and the video's name are lost.
    """
    (video,) = timelines
    length = round(length_of(video), _UNIT) or 1.0
    tiers = _tiers(video)
    head = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        f"xmin = 0\nxmax = {decimal(length)}\ntiers? <exists>",
        f"size = {len(tiers)}\nitem []:",
    ]
    items = (
        _item(place, name, lane, length) for place, (name, lane) in enumerate(tiers.items(), 1)
    )
    return "\n".join([*head, *items]) + "\n"


def _tiers(video: Timeline) -> dict[str, list[Segment]]:
    points = [each for each in video.segments if _is_point(each)]
    tiers = lanes_by_tier([each for each in video.segments if not _is_point(each)])
    for name, lane in lanes_by_tier(points).items():
        tiers[free_name(name, tiers)] = lane
    return tiers or {TIER: []}


def _is_point(segment: Segment) -> bool:
    return round(segment.start, _UNIT) == round(segment.end, _UNIT)


def _item(place: int, name: str, lane: list[Segment], length: float) -> str:
    points = bool(lane) and _is_point(lane[0])
    kind, entries = ("TextTier", "points") if points else ("IntervalTier", "intervals")
    rows = list(_points(lane) if points else _intervals(lane, length))
    lines = [
        f"    item [{place}]:",
        f'        class = "{kind}"',
        f"        name = {_quoted(name)}",
        f"        xmin = 0\n        xmax = {decimal(length)}",
        f"        {entries}: size = {len(rows)}",
    ]
    for count, row in enumerate(rows, start=1):
        lines.append(f"        {entries} [{count}]:")
        lines += [f"            {line}" for line in row]
    return "\n".join(lines)


def _points(lane: list[Segment]) -> Iterator[list[str]]:
    for each in lane:
        yield [f"number = {decimal(each.start)}", f"mark = {_quoted(each.label)}"]


def _intervals(lane: list[Segment], length: float) -> Iterator[list[str]]:
    reached = 0.0
    for each in lane:
        if round(each.start, _UNIT) > reached:
            yield _interval(reached, each.start, "")
        yield _interval(each.start, each.end, each.label)
        reached = round(each.end, _UNIT)
    if reached < length:
        yield _interval(reached, length, "")


def _interval(start: float, end: float, label: str) -> list[str]:
    return [f"xmin = {decimal(start)}", f"xmax = {decimal(end)}", f"text = {_quoted(label)}"]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
