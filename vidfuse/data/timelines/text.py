"""Lines for people: ``0:12.40 – 0:15.20  jump  .93``. They are written, never read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidfuse.data.timeline import Segment, Timeline


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A line for each segment, below the name of its video where there are several."""
    return "\n".join(_section(video, named=len(timelines) > 1) for video in timelines)


def _section(video: Timeline, *, named: bool) -> str:
    names = [f"{video.path or 'a video without a name'}:"] if named else []
    width = max((len(each.label) for each in video.segments), default=0)
    times = [f"{_time(each.start)} – {_time(each.end)}" for each in video.segments]
    room = max(map(len, times), default=0)
    lines = [
        f"{time:>{room}}  {each.label:<{width}}{_score(each)}".rstrip()
        for time, each in zip(times, video.segments, strict=True)
    ]
    return "".join(f"{line}\n" for line in names + lines)


def _time(seconds: float) -> str:
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    hours, minute = divmod(minutes, 60)
    clock = f"{hours}:{minute:02}" if hours else f"{minute}"
    return f"{clock}:{hundredths / 100:05.2f}"


def _score(segment: Segment) -> str:
    if segment.score is None:
        return ""
    return "  " + (f"{segment.score:.2f}".removeprefix("0"))
