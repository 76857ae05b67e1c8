"""Dividing clips without tearing apart what belongs together: groups and files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.files import natural_key
from vidfuse.data.stratify import assign_groups, find_components

Contents = Mapping[Path, str]
"""Content hashes of the files that could be read."""


def make_units(clips: Sequence[Clip], contents: Contents, *, by_group: bool) -> list[int]:
    """Number of the indivisible unit that each clip is in: its group, its file and its content."""
    keys = []
    for clip in clips:
        key = [("file", os.path.normpath(clip.path))]
        if clip.path in contents:
            key.append(("content", contents[clip.path]))
        if by_group and clip.group is not None:
            key.append(("group", clip.group))
        keys.append(key)
    return find_components(keys)


def divide(
    clips: Sequence[Clip], units: Sequence[int], fractions: Sequence[float], seed: int
) -> list[list[Clip]]:
    """Divide clips into parts of about these shares, keeping units whole: one list per share."""
    counts: list[Counter[str]] = [Counter() for _ in range(max(units) + 1)]
    for clip, unit in zip(clips, units, strict=True):
        counts[unit][str(clip.label)] += 1
    assigned = assign_groups(counts, fractions, seed)
    parts: list[list[Clip]] = [[] for _ in fractions]
    for clip, unit in zip(clips, units, strict=True):
        parts[assigned[unit]].append(clip)
    return parts


def clip_key(clip: Clip) -> tuple[object, ...]:
    """Sort key that depends on the clip only, not on where in a list it stands."""
    path = natural_key(Path(os.path.normpath(clip.path)).as_posix())
    end = float("inf") if clip.end is None else clip.end
    return path, clip.start or 0.0, end, clip.label, clip.group or "", clip.split or ""


def listing(names: Iterable[str], most: int = 3) -> str:
    """The first few names, in natural order."""
    ordered = sorted(names, key=natural_key)
    return ", ".join(ordered[:most]) + (", …" if len(ordered) > most else "")
