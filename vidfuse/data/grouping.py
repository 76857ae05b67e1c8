"""Dividing indivisible groups of clips into parts that resemble each other in their classes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

_RESTARTS = 20
_RESTARTED_GROUPS = 2000  # above this there is always room for every class

_Cost = tuple[int, int, int, float]


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
    best = _Assignment(groups, fractions)
    best.fill(_shuffled(len(groups), rng, groups))
    for _ in range(_RESTARTS if len(groups) <= _RESTARTED_GROUPS else 0):
        if best.cost()[:3] == (0, 0, 0):
            break
        other = _Assignment(groups, fractions)
        other.fill(_shuffled(len(groups), rng))
        if _less(other.cost(), best.cost()):
            best = other
    return best.part


def find_components(links: Sequence[Sequence[Hashable]]) -> list[int]:
    """Number the items so that two that share a key, if only through others, share a number.

    Args:
        links: Keys of each item, at least one.

    Returns:
        A number for each item, in order of first appearance.
    """
    parent: dict[Hashable, Hashable] = {}

    def find(key: Hashable) -> Hashable:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for first, *others in links:
        for other in others:
            parent[find(other)] = find(first)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(find(keys[0]), len(numbers)) for keys in links]


def _shuffled(
    count: int, rng: random.Random, groups: Sequence[Mapping[str, int]] | None = None
) -> list[int]:
    order = list(range(count))
    rng.shuffle(order)
    if groups is not None:
        order.sort(key=lambda i: -sum(groups[i].values()))
    return order


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

    def cost(self) -> _Cost:
        """Cost of the whole assignment; lower is better."""
        return self._cost(list(self.counts))

    def _cost_after(self, group: int, part: int) -> _Cost:
        here = self.part[group]
        self._move(group, part)
        cost = self._cost([label for label, _ in self.groups[group]])
        self._move(group, here)
        return cost

    def _cost(self, labels: list[str]) -> _Cost:
        """Cost as far as it concerns some classes, whose groups are the ones that moved."""
        untrained = absent = 0
        deviation = 0.0
        for label in labels:
            counts, total = self.counts[label], self.total[label]
            untrained += counts[0] == 0
            present = sum(count > 0 for count in counts)
            absent += max(0, min(len(counts), self.groups_of_class[label]) - present)
            deviation += _deviation(counts, self.fractions, total)
        deviation += _deviation(self.sizes, self.fractions, self.clips)
        return untrained, self.sizes.count(0), absent, deviation

    def _move(self, group: int, part: int) -> None:
        for index, sign in ((self.part[group], -1), (part, 1)):
            if index >= 0:
                for label, count in self.groups[group]:
                    self.counts[label][index] += sign * count
                    self.sizes[index] += sign * count
        self.part[group] = part


def _deviation(counts: Sequence[int], fractions: Sequence[float], total: int) -> float:
    return sum((n / total - f) ** 2 for n, f in zip(counts, fractions, strict=True))
