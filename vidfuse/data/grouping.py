"""Dividing clips without tearing apart what belongs together: groups and files.

The parts resemble each other in their classes.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.files import natural_key

Contents = Mapping[Path, str]
"""Content hashes of the files that could be read."""

_RESTARTS = 20
_RESTARTED_GROUPS = 2000  # above this there is always room for every class

_Key = tuple[str, str]
_Cost = tuple[int, int, int, float]


def make_units(clips: Sequence[Clip], contents: Contents, *, by_group: bool) -> list[int]:
    """Number of the indivisible unit that each clip is in, in order of first appearance.

    Two clips of one group, file or content are in the same unit, and so are two that are linked
    only through others.
    """
    parent: dict[_Key, _Key] = {}  # a forest, each tree of which is a unit
    files: list[_Key] = []
    for clip in clips:
        file: _Key = ("file", os.path.normpath(clip.path))
        parent.setdefault(file, file)
        files.append(file)
        others: list[_Key] = []
        if clip.path in contents:
            others.append(("content", contents[clip.path]))
        if by_group and clip.group is not None:
            others.append(("group", clip.group))
        for other in others:
            parent.setdefault(other, other)
            parent[_root(parent, other)] = _root(parent, file)
    numbers: dict[_Key, int] = {}
    return [numbers.setdefault(_root(parent, file), len(numbers)) for file in files]


def _root(parent: dict[_Key, _Key], key: _Key) -> _Key:
    """The root of a key's tree; on the way there, its path is halved."""
    while parent[key] != key:
        parent[key] = parent[parent[key]]
        key = parent[key]
    return key


def divide(
    clips: Sequence[Clip],
    units: Sequence[int],
    fractions: Sequence[float],
    seed: int,
    frame_classes: Mapping[Clip, Collection[str]] | None = None,
) -> list[list[Clip]]:
    """Divide clips into parts of about these shares, keeping units whole: one list per share.

    Args:
        clips: What is divided.
        units: What each belongs to, as an index.
        fractions: Share of each part.
        seed: Decides which of equally good units go where.
        frame_classes: Of clips that hold several; see `Dataset`.
    """
    counts: list[Counter[str]] = [Counter() for _ in range(max(units) + 1)]
    for clip, unit in zip(clips, units, strict=True):
        counts[unit].update((frame_classes or {}).get(clip, (str(clip.label),)))
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


def assign_groups(
    groups: Sequence[Mapping[str, int]], fractions: Sequence[float], seed: int
) -> list[int]:
    """Give each group to one part, so that every part has its share of every class.

    A greedy pass places the groups from big to small, each where it reduces the squared
    deviation from the wanted class counts the most. Moves of single groups then improve, in this
    order: classes absent from the first part, empty parts, classes absent from other parts
    although they have groups enough, the deviation.

    Args:
        groups: Number of clips of each class, for every group, in an order that does not depend
            on chance.
        fractions: Share of the clips that each part should get; they sum to one.
        seed: Decides between groups that are as good.

    Returns:
        Index of a part for every group. The first part has clips of every class.
    """
    rng = random.Random(seed)
    order = list(range(len(groups)))
    rng.shuffle(order)
    best = _Assignment(groups, fractions)
    best.fill(sorted(order, key=lambda i: -sum(groups[i].values())))
    for _ in range(_RESTARTS if len(groups) <= _RESTARTED_GROUPS else 0):
        if best.cost()[:3] == (0, 0, 0):
            break
        order = list(range(len(groups)))
        rng.shuffle(order)
        other = _Assignment(groups, fractions)
        other.fill(order)
        if _less(other.cost(), best.cost()):
            best = other
    return best.part


def _less(cost: _Cost, than: _Cost) -> bool:
    # Rounding must not make two moves undo each other for ever.
    return (*cost[:3], cost[3] + 1e-9) < than


class _Assignment:
    """Class counts of each part, kept up to date while groups move."""

    def __init__(self, groups: Sequence[Mapping[str, int]], fractions: Sequence[float]) -> None:
        self.groups = [sorted(group.items()) for group in groups]
        self.fractions = fractions
        self.part = [-1] * len(groups)
        self.total: Counter[str] = Counter()
        self.groups_of_class: Counter[str] = Counter()
        for group in self.groups:
            self.total.update(dict(group))
            self.groups_of_class.update(label for label, _ in group)
        self.clips = sum(self.total.values())
        self.counts = {label: [0] * len(fractions) for label in sorted(self.total)}
        self.sizes = [0] * len(fractions)

    def fill(self, order: Sequence[int]) -> None:
        """Place all groups in this order, then move single ones while that helps."""
        parts = range(len(self.fractions) - 1, -1, -1)  # on a tie test before val before train
        for group in order:
            self._move(group, min(parts, key=lambda part: self._cost_after(group, part)[3]))
        improved = True
        while improved:
            improved = False
            for group in order:
                here = self.part[group]
                best = min(parts, key=lambda part: self._cost_after(group, part))
                if best != here and _less(
                    self._cost_after(group, best), self._cost_after(group, here)
                ):
                    self._move(group, best)
                    improved = True

    def _cost_after(self, group: int, part: int) -> _Cost:
        here = self.part[group]
        self._move(group, part)
        cost = self.cost([label for label, _ in self.groups[group]])
        self._move(group, here)
        return cost

    def cost(self, labels: Sequence[str] | None = None) -> _Cost:
        """Cost of the assignment, lower is better; of some classes alone, where only they moved."""
        labels = list(self.counts) if labels is None else labels
        untrained = absent = 0
        for label in labels:
            counts = self.counts[label]
            untrained += counts[0] == 0
            present = sum(count > 0 for count in counts)
            absent += max(0, min(len(counts), self.groups_of_class[label]) - present)
        deviation = 0.0
        divided = [(self.counts[label], self.total[label]) for label in labels]
        for counts, total in [*divided, (self.sizes, self.clips)]:
            shares = zip(counts, self.fractions, strict=True)
            deviation += sum((count / total - wanted) ** 2 for count, wanted in shares)
        return untrained, self.sizes.count(0), absent, deviation

    def _move(self, group: int, part: int) -> None:
        for index, sign in ((self.part[group], -1), (part, 1)):
            if index >= 0:
                for label, count in self.groups[group]:
                    self.counts[label][index] += sign * count
                    self.sizes[index] += sign * count
        self.part[group] = part
