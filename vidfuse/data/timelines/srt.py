"""SubRip subtitles (SRT), a numbered cue per segment.

The format has no way to write what it reads as a mark: text such as ``<b>`` is lost on reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines.common import Source, timeline
from vidfuse.data.timelines.cues import blocks, is_timing, read_cue, text_of, timings, with_text

_TAG = re.compile(r"</?(?:[biu]|font(?:\s[^>]*)?)>|\{\\an?\d+\}", re.IGNORECASE)


def recognise(text: str) -> bool:
    """Recognise a number and times in the first block."""
    block = next(blocks(text), None)
    return block is not None and any(map(is_timing, block.lines[:2]))


def read(source: Source) -> list[Timeline]:
    """Read the cues as one timeline; marks of bold, italics, colour and place are read past.

    Raises:
        UserError: There is no cue in a file that is not empty.
    """
    segments = []
    for block in blocks(source.text):
        try:
            cue = read_cue(block)
            segments.append(with_text(cue, _TAG.sub("", cue.label)))
        except BadRowError as error:
            source.report(block.line, error)
    if not any(map(is_timing, source.text.splitlines())) and source.text.strip():
        raise source.refuse("no SRT", "A cue has times such as 00:00:01,500 --> 00:00:04,000.")
    return [timeline(None, segments)]


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A cue for each segment of one video; point events last a millisecond."""
    (video,) = timelines
    cues = enumerate(timings(video, ","), start=1)
    return "\n".join(f"{count}\n{times}\n{text_of(each)}\n" for count, (times, each) in cues)
