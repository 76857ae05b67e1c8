r"""Label tracks of Audacity: lines ``start<TAB>end<TAB>label`` in seconds.

Lines that begin with a backslash hold the range of frequencies of the label before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines.common import Source, make_segment, seconds, timeline


def recognise(text: str) -> bool:
    """Recognise two times, with tabs, in the first line."""
    first = next((cells for _, cells in _rows(text)), [])
    try:
        seconds(first[0], "start"), seconds(first[1], "end")
    except (BadRowError, IndexError):
        return False
    return True


def read(source: Source) -> list[Timeline]:
    """Read the labels as one timeline.

    Raises:
        UserError: No line has two times, in a file that is not empty.
    """
    segments = []
    for line, cells in _rows(source.text):
        try:
            if len(cells) < 2:
                raise BadRowError("no tab between start and end")
            segments.append(make_segment(cells[0], cells[1], " ".join(cells[2:])))
        except BadRowError as error:
            source.report(line, error)
    if source.text.strip() and not any(len(cells) > 1 for _, cells in _rows(source.text)):
        raise source.refuse("no labels of Audacity", "A line is start, end, label, with tabs.")
    return [timeline(None, segments)]


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip() and not line.startswith("\\"):
            start, *rest = line.split("\t")
            end = [each.replace(",", ".") for each in rest[:1]]  # of some languages
            yield number, [start.replace(",", "."), *end, *rest[1:]]


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A line for each segment of one video."""
    (video,) = timelines
    return "".join(f"{each.start:.6f}\t{each.end:.6f}\t{each.label}\n" for each in video.segments)
