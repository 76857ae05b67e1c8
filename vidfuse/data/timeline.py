"""The timeline: what happens when in a video, as segments with a class each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vidfuse.results import TimelineRecord

BEYOND = 1.0  # second that annotations may go on after the end of a video


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a video that belongs to one class.

    Attributes:
        start: Where it begins, in seconds from the start of the file.
        end: Where it ends (exclusive), in seconds; a point event ends where it starts.
        label: Its class.
        score: How probable the class is, from 0 to 1; None where nobody says.
        tier: The tier (ELAN, Praat) or subject (BORIS) that it is of; None where there are none.
    """

    start: float
    end: float
    label: str
    score: float | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The segments of one video.

    Attributes:
        path: The video, as the file of annotations names it; None where it names none.
        segments: By start, then end, then label. They may overlap.
        duration: Seconds of the whole video; None where nobody says.
        fps: Frames per second of the video; None where nobody says.
        group: What must not be on two sides of a split, as of clips; None where nobody says.
    """

    path: Path | None
    segments: list[Segment]
    duration: float | None = None
    fps: float | None = None
    group: str | None = None


def beyond_the_end(path: Path, segments: Iterable[Segment], duration: float | None) -> str:
    """A warning where a video is annotated beyond its end, by more than a second; else empty.

    Args:
        path: The video.
        segments: Of it; one of all the rest ends at infinity.
        duration: Its length in seconds; None where nobody says.
    """
    last = max((each.end for each in segments if math.isfinite(each.end)), default=0.0)
    if duration is None or last <= duration + BEYOND:
        return ""
    return f"{path}: annotated up to {last:.1f} s, but it ends at {duration:.1f} s"


def in_order(segments: Iterable[Segment]) -> list[Segment]:
    """Segments by start, then end, then label."""
    return sorted(segments, key=lambda each: (each.start, each.end, each.label))


def timeline_of(record: TimelineRecord, path: Path | None = None) -> Timeline:
    """The timeline of a record.

    Args:
        record: Of a video that could be predicted.
        path: The video, where it is called otherwise than in the record.
    """
    segments = [Segment(each.start, each.end, each.label, each.score) for each in record.segments]
    return Timeline(path or Path(record.path), segments, record.duration, record.fps)
