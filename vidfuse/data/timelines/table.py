"""A table with the columns ``path,start,end,label[,score][,tier][,group]``: CSV, or with tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vidfuse.data.tables import BadRowError, csv_rows, find_delimiter, split_header
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import (
    Source,
    clean_text,
    decimal,
    make_segment,
    path_of,
    timeline,
)

_COLUMNS = ("path", "start", "end", "label", "score", "tier", "group")
_HINT = (
    "A table of segments begins with the line path,start,end,label,score (without the last, too)."
)


def recognise(text: str) -> bool:
    """Recognise a header with start, end and label."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    headers = (split_header(line, delimiter) for delimiter in ",;\t|")
    return any({"start", "end", "label"} <= set(header) for header in headers)


def read(source: Source) -> list[Timeline]:
    """Read the rows, those of one path as one timeline, wherever they stand."""
    delimiter = find_delimiter(source.file, source.text, _COLUMNS, "start", _HINT)
    videos: dict[Path | None, list[Segment]] = {}
    groups: dict[Path | None, str] = {}
    for line, row in csv_rows(source.file, source.text, delimiter):
        try:
            if isinstance(row, BadRowError):
                raise row
            segment = make_segment(*(row.get(column) for column in _COLUMNS[1:-1]))
            path, group = path_of(row.get("path")), clean_text(row.get("group"), "group")
            if group and groups.setdefault(path, group) != group:
                which = f"group '{group}', though the video is of '{groups[path]}', which counts"
                source.report(line, which)
            videos.setdefault(path, []).append(segment)
        except BadRowError as error:
            source.report(line, error)
    return [timeline(path, segments, group=groups.get(path)) for path, segments in videos.items()]


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A row for each segment; a video without any is not in the table."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    optional = {
        "tier": any(each.tier for video in timelines for each in video.segments),
        "group": any(video.group for video in timelines),
    }
    columns = [column for column in _COLUMNS if optional.get(column, True)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for video in timelines:
        for each in video.segments:
            cells = {
                "path": video.path or "",
                "start": decimal(each.start),
                "end": decimal(each.end),
                "label": each.label,
                "score": "" if each.score is None else decimal(each.score),
                "tier": each.tier or "",
                "group": video.group or "",
            }
            writer.writerow([cells[column] for column in columns])
    return out.getvalue()
