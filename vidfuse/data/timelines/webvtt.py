"""WebVTT, a cue per segment (W3C, https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines.common import Source, timeline
from vidfuse.data.timelines.cues import blocks, is_timing, read_cue, text_of, timings, with_text

_TAG = re.compile(r"<[^>]*>")
_OTHER = ("WEBVTT", "NOTE", "STYLE", "REGION")


def recognise(text: str) -> bool:
    """Recognise the first word, WEBVTT."""
    return text.startswith("WEBVTT")


def read(source: Source) -> list[Timeline]:
    """Read the cues as one timeline; notes, styles, tags and settings are read past.

    Raises:
        UserError: The file does not begin as WebVTT does.
    """
    if not recognise(source.text):
        raise source.refuse("not WebVTT", "Its first line is WEBVTT.")
    segments = []
    for block in blocks(source.text):
        if block.lines[0].split()[0] in _OTHER and not any(map(is_timing, block.lines[:2])):
            continue
        try:
            cue = read_cue(block)
            segments.append(with_text(cue, html.unescape(_TAG.sub("", cue.label))))
        except BadRowError as error:
            source.report(block.line, error)
    return [timeline(None, segments)]


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A cue for each segment of one video; point events last a millisecond."""
    (video,) = timelines
    cues = [
        f"{times}\n{html.escape(text_of(each), quote=False)}\n"
        for times, each in timings(video, ".")
    ]
    return "\n".join(["WEBVTT\n", *cues])
