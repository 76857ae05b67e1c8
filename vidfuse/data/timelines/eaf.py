"""ELAN files (``.eaf``, EAF 3.0, https://www.mpi.nl/tools/elan/EAFv3.0.xsd).

Times are slots in milliseconds that annotations refer to. An annotation that refers to another one
has the time of that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import (
    TIER,
    Source,
    at_least_one,
    lanes_by_tier,
    make_segment,
    milliseconds,
    number,
    path_of,
    timeline,
)

_HINT = "Open it in ELAN and save it again."
_NO_XML = re.compile("[\ufffe\uffff]")
_DEEPEST = 100  # annotations from one to that with its time; a circle has no end
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"


class _UnusableError(Exception):
    """The file cannot be understood as a whole."""


@dataclass(slots=True)
class _Annotation:
    """An annotation as it stands: between two slots, or at another annotation."""

    line: int
    tier: str | None
    slots: tuple[str | None, str | None]
    parent: str | None
    value: str = ""


@dataclass(slots=True)
class _Document:
    """The content of the XML."""

    slots: dict[str, str | None] = field(default_factory=dict)
    annotations: dict[str, _Annotation] = field(default_factory=dict)
    media: list[dict[str, str]] = field(default_factory=list)
    units: str = "milliseconds"


class _Handler:
    """Takes what expat finds; there is no tree, so depth costs nothing."""

    def __init__(self, parser: expat.XMLParserType) -> None:
        self.document = _Document()
        self._parser = parser
        self._tier: str | None = None
        self._current: _Annotation | None = None
        self._parts: list[str] | None = None
        self._root: str | None = None
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        # Entities are declared there, which can name other files or grow without bounds.
        raise _UnusableError("it has a document type (DOCTYPE), which files of ELAN never have")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._root is None:
            self._root = name
            if name != "ANNOTATION_DOCUMENT":
                raise _UnusableError(f"it is XML, but its root is {name[:80]}")
        if name == "HEADER":
            self.document.units = attributes.get("TIME_UNITS", "milliseconds")
        elif name == "MEDIA_DESCRIPTOR":
            self.document.media.append(attributes)
        elif name == "TIME_SLOT":
            slot = attributes.get("TIME_SLOT_ID", "")
            self.document.slots[slot] = attributes.get("TIME_VALUE")
        elif name == "TIER":
            self._tier = attributes.get("TIER_ID")
        elif name in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
            self._begin_annotation(attributes)
        elif name == "ANNOTATION_VALUE":
            self._parts = []

    def _begin_annotation(self, attributes: dict[str, str]) -> None:
        self._current = _Annotation(
            self._parser.CurrentLineNumber,
            self._tier,
            (attributes.get("TIME_SLOT_REF1"), attributes.get("TIME_SLOT_REF2")),
            attributes.get("ANNOTATION_REF"),
        )
        annotations = self.document.annotations
        annotations[attributes.get("ANNOTATION_ID") or f" {len(annotations)}"] = self._current

    def _text(self, text: str) -> None:
        if self._parts is not None:
            self._parts.append(text)

    def _end(self, name: str) -> None:
        if name == "ANNOTATION_VALUE" and self._parts is not None:
            if self._current is not None:
                self._current.value = "".join(self._parts)
            self._parts = None


def recognise(text: str) -> bool:
    """Recognise the root of the document."""
    return "<ANNOTATION_DOCUMENT" in text


def read(source: Source) -> list[Timeline]:
    """Read the annotations of all tiers as one timeline.

    Raises:
        UserError: It is no XML, no file of ELAN, or declares a document type.
    """
    document = _parse(source)
    path = _video(document, source)
    if document.units != "milliseconds":
        raise source.refuse(f"its times are in {document.units[:80]}", _HINT)
    segments = []
    for annotation in document.annotations.values():
        try:
            segments.append(_segment(annotation, document))
        except BadRowError as error:
            source.report(annotation.line, error)
    return [timeline(path, segments)]


def _parse(source: Source) -> _Document:
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    handler = _Handler(parser)
    try:
        parser.Parse(source.text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        reason = f"line {error.lineno}: not XML ({expat.ErrorString(error.code)})"
        raise source.refuse(reason, _HINT) from None
    except _UnusableError as error:
        raise source.refuse(f"no file of ELAN: {error}", _HINT) from None
    return handler.document


def _video(document: _Document, source: Source) -> Path | None:
    """The first of the media, by its relative name if it has one."""
    if not document.media:
        return None
    first = document.media[0]
    if first.get("TIME_ORIGIN") not in (None, "", "0"):
        shift = f"annotations and video are {first['TIME_ORIGIN'][:80]} ms apart (TIME_ORIGIN)"
        source.report("MEDIA_DESCRIPTOR", f"{shift}, and times are read as they stand")
    name = first.get("RELATIVE_MEDIA_URL") or first.get("MEDIA_URL") or ""
    name = name.removeprefix("file:///") if re.match("file:///[A-Za-z]:", name) else name
    try:
        return path_of(name.removeprefix("file://").removeprefix("./"))
    except BadRowError as error:
        source.report("MEDIA_DESCRIPTOR", error)
        return None


def _segment(annotation: _Annotation, document: _Document) -> Segment:
    aligned, passed = annotation, 0
    while aligned.parent is not None:
        passed += 1
        if aligned.parent not in document.annotations:
            raise BadRowError(f"there is no annotation {aligned.parent[:80]}, to which it refers")
        if passed > _DEEPEST:
            raise BadRowError("it refers to others again and again, and none has a time")
        aligned = document.annotations[aligned.parent]
    start, end = (_time(slot, document) for slot in aligned.slots)
    return make_segment(start, end, annotation.value, tier=annotation.tier)


def _time(slot: str | None, document: _Document) -> float:
    if slot not in document.slots:
        raise BadRowError(f"there is no time slot {str(slot)[:80]}")
    value = document.slots[slot]
    if value is None:
        raise BadRowError(f"time slot {slot[:80]} has no time")
    return number(value, f"time slot {slot[:80]}") / 1000


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """The tiers of one video.

    What overlaps goes to further tiers. Times are rounded to milliseconds; point events last one.
    Scores and the duration are lost.
    """
    (video,) = timelines
    slots: list[tuple[int, str]] = []
    tiers = [_tier(name, lane, slots) for name, lane in _tiers(video)]
    times = "\n".join(
        f'        <TIME_SLOT TIME_SLOT_ID="{name}" TIME_VALUE="{value}"/>'
        for value, name in sorted(slots, key=lambda slot: slot[0])
    )
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<ANNOTATION_DOCUMENT AUTHOR="vidfuse" DATE="{_now()}" FORMAT="3.0" VERSION="3.0"',
            '    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"',
            f'    xsi:noNamespaceSchemaLocation="{_SCHEMA}">',
            '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
            *_media(video.path),
            f'        <PROPERTY NAME="lastUsedAnnotationId">{len(video.segments)}</PROPERTY>',
            "    </HEADER>",
            f"    <TIME_ORDER>\n{times}\n    </TIME_ORDER>",
            *tiers,
            '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt"'
            ' TIME_ALIGNABLE="true"/>',
            "</ANNOTATION_DOCUMENT>\n",
        ]
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _tiers(video: Timeline) -> Iterator[tuple[str, list[Segment]]]:
    # A point event gets a length, and may then overlap with what was beside it.
    with_length = [
        replace(each, start=start / 1000, end=at_least_one(start, milliseconds(each.end)) / 1000)
        for each in video.segments
        for start in [milliseconds(each.start)]
    ]
    yield from (lanes_by_tier(with_length) or {TIER: []}).items()


def _tier(name: str, lane: list[Segment], slots: list[tuple[int, str]]) -> str:
    """The XML of a tier, whose times are added to the slots."""
    lines = [f'    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID={_attribute(name)}>']
    for each in lane:
        first = len(slots) + 1
        slots.append((milliseconds(each.start), f"ts{first}"))
        slots.append((milliseconds(each.end), f"ts{first + 1}"))
        lines += [
            "        <ANNOTATION>",
            f'            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a{len(slots) // 2}"'
            f' TIME_SLOT_REF1="ts{first}" TIME_SLOT_REF2="ts{first + 1}">',
            f"                <ANNOTATION_VALUE>{escape(_valid(each.label))}</ANNOTATION_VALUE>",
            "            </ALIGNABLE_ANNOTATION>",
            "        </ANNOTATION>",
        ]
    return "\n".join([*lines, "    </TIER>"])


def _media(path: Path | None) -> list[str]:
    if path is None:
        return []
    name = PurePath(path).as_posix()
    if path.is_absolute():
        urls = f"MEDIA_URL={_attribute('file:///' + name.removeprefix('/'))}"
    else:
        urls = f"MEDIA_URL={_attribute(name)} RELATIVE_MEDIA_URL={_attribute('./' + name)}"
    return [f'        <MEDIA_DESCRIPTOR {urls} MIME_TYPE="video/{_kind(path)}"/>']


def _kind(path: Path) -> str:
    return {".mp4": "mp4", ".mov": "quicktime", ".mpg": "mpeg", ".mpeg": "mpeg"}.get(
        path.suffix.lower(), "*"
    )


def _attribute(text: str) -> str:
    return quoteattr(_valid(text))


def _valid(text: str) -> str:
    """The text without the characters that XML cannot hold."""
    return _NO_XML.sub("\ufffd", text)
