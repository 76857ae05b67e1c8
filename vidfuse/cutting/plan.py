"""The parts of a video that become clips: pure functions of its segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vidfuse.cutting.config import CutConfig
from vidfuse.data.timeline import Segment

LEAST_GAP = 0.5  # seconds: what is shorter between two segments is no background


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part of a video that becomes a clip.

    Attributes:
        start: Where it begins, in seconds from the start of the file.
        end: Where it ends (exclusive).
        label: Its class.
        until: Where the segment itself ends, without context.
    """

    start: float
    end: float
    label: str
    until: float


def plan_parts(
    segments: Sequence[Segment], config: CutConfig, duration: float | None
) -> tuple[list[Part], list[str]]:
    """The parts of a video that become clips.

    Args:
        segments: What happens in it.
        config: Which of them, and how much around them.
        duration: Seconds of the video, which background needs; None where nobody knows.

    Returns:
        The parts in order of time, each once, and what was left out, as the user is told it.
    """
    wanted = config.wanted
    chosen = [each for each in segments if wanted is None or each.label in wanted]
    points = [each for each in chosen if each.end <= each.start and not config.pad]
    short = [each for each in chosen if each.start < each.end < each.start + config.min_duration]
    left_out = []
    if points:
        left_out.append(f"{_count(points)} without a length left out; --pad gives them one")
    if short:
        bound = f"--min-duration {config.min_duration:g}"
        left_out.append(f"{_count(short)} shorter than {bound} left out")
    kept = set(chosen).difference(points, short)
    parts = {_padded(each, config.pad, duration) for each in kept}
    if config.background is not None and duration is not None:
        occupied = [_padded(each, config.pad, duration) for each in segments]
        least = max(config.min_duration, LEAST_GAP)
        for start, end in _gaps(occupied, duration, least):
            count = math.ceil((end - start) / config.max_duration)
            times = np.linspace(start, end, count + 1).tolist()
            parts |= {Part(*pair, config.background, pair[1]) for pair in pairwise(times)}
    return sorted(parts), left_out


def _count(segments: Sequence[Segment]) -> str:
    return "1 segment" if len(segments) == 1 else f"{len(segments)} segments"


def _padded(segment: Segment, pad: float, duration: float | None) -> Part:
    end = segment.end + pad
    if duration is not None and segment.end <= duration:
        end = min(end, duration)
    return Part(max(segment.start - pad, 0.0), end, segment.label, segment.end)


def _gaps(parts: Sequence[Part], duration: float, least: float) -> list[tuple[float, float]]:
    """The gaps that no part covers, of at least so many seconds."""
    found: list[tuple[float, float]] = []
    reached = 0.0
    for part in [*sorted(parts), Part(duration, duration, "", duration)]:
        if min(part.start, duration) - reached >= least:
            found.append((reached, min(part.start, duration)))
        reached = max(reached, part.end)
    return found
