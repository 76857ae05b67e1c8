"""Videos with annotations: what happens when in each, whatever says so.

A manifest whose rows have ``start`` and ``end``, a file of annotations, or a folder of such files
beside their videos.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.layouts import manifest
from vidfuse.data.tables import read_text
from vidfuse.data.timeline import Segment, in_order
from vidfuse.data.timelines import FORMATS, read_timelines
from vidfuse.data.timelines.pairing import annotation_files, find_video
from vidfuse.errors import InputError, UserError


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

    def label_at(self, moment: float) -> str | None:
        """The class at a moment, in seconds; where several overlap, of what began last."""
        inside = [each for each in self.segments if each.start <= moment < each.end]
        return max(inside, key=lambda each: each.start).label if inside else None


def read_annotated(root: Path) -> tuple[list[AnnotatedVideo], list[str]]:
    """Read videos with their annotations.

    Args:
        root: A manifest, a file of annotations, or a folder of either.

    Returns:
        The videos by path, and what was left out and why.

    Raises:
        UserError: Nothing in it says what happens when in a video.
    """
    problems: list[str] = []
    if manifest.recognise(root) and not _has_timelines(root):
        dataset = manifest.read(root, None)
        return _of_clips(dataset.clips), list(dataset.problems)
    files = [root]
    if root.is_dir():
        files = [file for file in annotation_files(root) if file.is_file()]
    found: dict[Path, list[Segment]] = {}
    groups: dict[Path, str | None] = {}
    for file in files:
        annotations = read_timelines(file)
        problems += annotations.problems
        for timeline in annotations.timelines:
            video = find_video(timeline.path or Path(file.stem), file.parent)
            if isinstance(video, InputError):
                problems.append(f"{file.name}: {video.message}")
                continue
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


def _of_clips(clips: Iterable[Clip]) -> list[AnnotatedVideo]:
    """Videos of the rows of a manifest; a row without times is all of its video."""
    rows: dict[Path, list[Clip]] = {}
    for clip in clips:
        rows.setdefault(clip.path, []).append(clip)
    videos = []
    for path, own in rows.items():
        segments = [
            Segment(clip.start or 0.0, math.inf if clip.end is None else clip.end, clip.label)
            for clip in own
            if clip.label is not None
        ]
        group = next((clip.group for clip in own if clip.group is not None), None)
        split = next((clip.split for clip in own if clip.split is not None), None)
        videos.append(AnnotatedVideo(path, in_order(segments), group, split))
    return videos


def _has_timelines(root: Path) -> bool:
    """True for JSON lines whose objects have segments: they are no manifest of clips."""
    if root.is_dir() or root.suffix.lower() not in FORMATS["jsonl"].suffixes:
        return False
    return '"segments"' in read_text(root).partition("\n")[0]
