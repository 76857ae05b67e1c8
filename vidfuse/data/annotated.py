"""Videos with annotations: what happens when in each, whatever says so.

A manifest whose rows have ``start`` and ``end``, a file of annotations, or a folder of such files
beside their videos.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.layouts import manifest
from vidfuse.data.tables import read_text, split_header
from vidfuse.data.timeline import Segment, in_order
from vidfuse.data.timelines import FORMATS, load_format, read_timelines
from vidfuse.data.timelines.pairing import annotation_files, find_video
from vidfuse.errors import InputError, UserError

HEAD = 65536  # characters by which a table is recognised


@dataclass(frozen=True, slots=True)
class AnnotatedVideo:
    """A video and what happens in it.

    Attributes:
        path: The video.
        segments: By time. They may overlap, and end behind the video.
        group: What must not straddle a split; None where nothing says so: the video itself.
        split: ``"train"``, ``"val"`` or ``"test"`` where the dataset says so.
    """

    path: Path
    segments: list[Segment]
    group: str | None = None
    split: str | None = None

    def labels_at(self, moments: Sequence[float]) -> list[str | None]:
        """The class at each moment ``[N]``, in seconds and in order; None where there is none.

        Where several segments overlap, it is that of what began last.
        """
        labels: list[str | None] = [None] * len(moments)
        latest_first = sorted(self.segments, key=lambda each: each.start, reverse=True)
        for each in reversed(latest_first):  # of those that begin together the first comes last
            first, stop = (bisect_left(moments, time) for time in (each.start, each.end))
            labels[first:stop] = [each.label] * (stop - first)
        return labels


def read_annotated(root: Path) -> tuple[list[AnnotatedVideo], list[str]]:
    """Read videos with their annotations.

    Args:
        root: A manifest, a file of annotations, or a folder of either.

    Returns:
        The videos by path, and what was left out and why.

    Raises:
        UserError: Nothing in it says what happens when in a video.
    """
    if not root.exists():
        raise UserError(f"{root}: no such file or folder", "Check the path.")
    problems: list[str] = []
    if manifest.recognise(root) and not _has_timelines(root):
        dataset = manifest.read(root, None)
        problems += dataset.problems
        if all(clip.start is None and clip.end is None for clip in dataset.clips):
            why = f" ({problems[0]})" if problems else ""
            raise UserError(
                f"{root}: no row says when, in the columns start and end{why}",
                "Add them, or leave out --timeline to learn from whole clips.",
            )
        return _of_clips(dataset.clips, problems), problems
    files = [root]
    if root.is_dir():
        files = [file for file in annotation_files(root) if file.is_file()]
    known: dict[str, Path] = {}
    sources: dict[Path, Path] = {}
    found: dict[Path, list[Segment]] = {}
    groups: dict[Path, str | None] = {}
    for file in files:
        try:
            annotations = read_timelines(file)
        except UserError as error:
            if not root.is_dir():
                raise
            problems.append(error.message)
            continue
        problems += annotations.problems
        for timeline in annotations.timelines:
            video = find_video(timeline.path or Path(file.stem), file.parent)
            if isinstance(video, InputError):
                problems.append(f"{file.name}: {video.message}")
                continue
            video = known.setdefault(os.path.abspath(video), video)
            if (other := sources.setdefault(video, file)) != file:
                raise UserError(
                    f"{video} has two files of annotations: {other.name} and {file.name}",
                    "Keep one of them there, or name it alone.",
                )
            found.setdefault(video, []).extend(timeline.segments)
            groups.setdefault(video, timeline.group)
    if not found:
        reason = f" ({problems[0]})" if problems else ""
        raise UserError(
            f"{root}: no video with annotations{reason}",
            "Name a manifest with the columns path,label,start,end, a file of annotations, or a "
            "folder of videos with such a file beside each.",
        )
    videos = [AnnotatedVideo(path, in_order(found[path]), groups[path]) for path in sorted(found)]
    return videos, problems


def _of_clips(clips: Iterable[Clip], problems: list[str]) -> list[AnnotatedVideo]:
    """Videos of the rows of a manifest; a row without times is all of its video.

    Rows that disagree about the group or split of a video are added to the problems.
    """
    known: dict[str, Path] = {}
    rows: dict[Path, list[Clip]] = {}
    for clip in clips:
        rows.setdefault(known.setdefault(os.path.abspath(clip.path), clip.path), []).append(clip)
    videos = []
    if unlabelled := sum(clip.label is None for own in rows.values() for clip in own):
        problems.append(f"{unlabelled} rows have no label and count as nothing annotated")
    for path, own in rows.items():
        segments = [
            Segment(clip.start or 0.0, math.inf if clip.end is None else clip.end, clip.label)
            for clip in own
            if clip.label is not None
        ]
        said = {}
        for column in ("group", "split"):
            values = dict.fromkeys(filter(None, (getattr(clip, column) for clip in own)))
            said[column] = next(iter(values), None)
            if len(values) > 1:
                problems.append(
                    f"{path.name}: {column} {' and '.join(values)}; a video has one: "
                    f"{said[column]} for all of it"
                )
        videos.append(AnnotatedVideo(path, in_order(segments), **said))
    return videos


def _has_timelines(root: Path) -> bool:
    """True for a file that is no manifest of clips, by its beginning: JSON lines whose objects have
    segments, and tables of events or segments that name no video in a column ``path``.
    """
    if root.is_dir():
        return False
    text = read_text(root)
    if root.suffix.lower() in FORMATS["jsonl"].suffixes:
        return '"segments"' in text.partition("\n")[0]
    header = next((line for line in text.splitlines() if line.strip()), "")
    if any("path" in split_header(header, delimiter) for delimiter in ",;\t|"):
        return False
    return any(load_format(name).recognise(text[:HEAD]) for name in ("csv", "boris-events"))
