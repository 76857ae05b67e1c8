"""JSON lines, a record per video: what ``vidfuse predict --timeline`` writes.

``{"path": …, "ok": true, "duration": …, "segments": [{"start", "end", "label", "score"}]}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from vidfuse.data.tables import BadRowError, Row, jsonl_rows
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import (
    Source,
    clean_text,
    make_segment,
    path_of,
    positive,
    timeline,
)

_EXAMPLE = '{"path": "a.mp4", "segments": [{"start": 0.4, "end": 2.5, "label": "jump"}]}'


def recognise(text: str) -> bool:
    """Recognise lines that are objects."""
    return text.lstrip().startswith("{")


def read(source: Source) -> list[Timeline]:
    """Read the records; those of videos that failed are reported, other keys are ignored."""
    found = []
    for line, row in jsonl_rows(source.file, source.text, "segments", _EXAMPLE):
        try:
            if isinstance(row, BadRowError):
                raise row
            found.append(_read_record(row, line, source))
        except BadRowError as error:
            source.report(line, error)
    return found


def _read_record(row: Row, line: int, source: Source) -> Timeline:
    if row.get("ok") is False:
        raise BadRowError(f"the video has failed ({str(row.get('error'))[:200]})")
    items = row.get("segments")
    if not isinstance(items, list):
        raise BadRowError("there is no list of segments")
    segments = []
    for count, item in enumerate(items, start=1):
        try:
            segments.append(_read_segment(item))
        except BadRowError as error:
            source.report(line, f"segment {count}: {error}")
    return timeline(
        path_of(row.get("path")),
        segments,
        positive(row.get("duration")),
        positive(row.get("fps")),
        clean_text(row.get("group"), "group") or None,
    )


def _read_segment(item: object) -> Segment:
    if not isinstance(item, dict):
        raise BadRowError("not a JSON object")
    return make_segment(*(item.get(key) for key in ("start", "end", "label", "score", "tier")))


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A record for each video."""
    lines = (json.dumps(_record(each), ensure_ascii=False) for each in timelines)
    return "".join(f"{line}\n" for line in lines)


def _record(video: Timeline) -> dict[str, object]:
    record: dict[str, object] = {
        "path": None if video.path is None else str(video.path),
        "ok": True,
        "duration": video.duration,
    }
    if video.fps is not None:
        record["fps"] = video.fps
    if video.group is not None:
        record["group"] = video.group
    return record | {"segments": [dict(_entries(each)) for each in video.segments]}


def _entries(segment: Segment) -> Iterator[tuple[str, object]]:
    yield from (("start", round(segment.start, 6)), ("end", round(segment.end, 6)))
    yield from (("label", segment.label), ("score", segment.score))
    if segment.tier is not None:
        yield "tier", segment.tier
