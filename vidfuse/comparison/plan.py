"""What a comparison is made of: clips, folds for each seed, and the fits to be done."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.clip import Clip
from vidfuse.data.folds import Folds
from vidfuse.data.splits import PARTS
from vidfuse.evaluation.compare.config import CompareConfig
from vidfuse.features.spec import FeatureSpec, Grid
from vidfuse.fusion import HEADS, head_class

FORMAT = 2
"""Of what is kept of a fit; another one is not used again."""

Rows = dict[str, list[int]]
"""The clips of each part of a split, as places in the plan's list."""


@dataclass(frozen=True, slots=True)
class Task:
    """One head on one fold of one seed: a search, and the fits that are measured."""

    head: str
    seed: int
    fold: int


@dataclass(frozen=True)
class Plan:
    """Who is trained, chosen and tested on what; the same for every head.

    Attributes:
        clips: All clips that can be read.
        contents: Content hash of each.
        classes: Names of the C classes.
        splits: For each seed and each fold, the places of its clips in ``clips``.
        protocol: How the folds came about, in one line.
        warnings: What weakens the comparison, one line each.
    """

    clips: list[Clip]
    contents: list[str]
    classes: list[str]
    splits: list[list[Rows]]
    protocol: str
    warnings: list[str] = field(default_factory=list)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each clip [N], as a place in ``classes``."""
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[str(clip.label)] for clip in self.clips])

    @property
    def groups(self) -> list[str | None]:
        """Group of each clip."""
        return [clip.group for clip in self.clips]

    def tasks(self, heads: Sequence[str]) -> Iterator[Task]:
        """All of them, a seed and a fold after the other, so that heads advance together."""
        for seed, folds in enumerate(self.splits):
            for fold, rows in enumerate(folds):
                if rows["test"]:
                    yield from (Task(head, seed, fold) for head in heads)

    def held(self, seed: int) -> Iterator[NDArray[np.bool_]]:
        """Which clips each fold of a seed tests on [N]."""
        for rows in self.splits[seed]:
            held = np.zeros(len(self.clips), bool)
            held[rows["test"]] = True
            yield held


def make_plan(
    clips: Sequence[Clip],
    contents: Sequence[str],
    folds: Sequence[Folds],
    warnings: Sequence[str] = (),
) -> Plan:
    """Put the clips that can be read in the places that the folds of each seed give them.

    Args:
        clips: Those that can be read.
        contents: Content hash of each.
        folds: Those of each seed.
        warnings: What else weakens the comparison.
    """
    places = {clip: place for place, clip in enumerate(clips)}
    return Plan(
        clips=list(clips),
        contents=list(contents),
        classes=sorted({str(clip.label) for clip in clips}),
        splits=[
            [
                {part: [places[c] for c in getattr(split, part) if c in places] for part in PARTS}
                for split in each.splits
            ]
            for each in folds
        ],
        protocol=folds[0].protocol,
        warnings=list(
            dict.fromkeys([*warnings, *(line for each in folds for line in each.warnings)])
        ),
    )


class Keys:
    """Names fits by everything that decides what comes out of them.

    All settings count but those declared with ``affects_result=False``: one that is new makes
    other keys, and at worst a fit is done again.

    Args:
        plan: The clips and folds.
        config: All settings.
        epochs: Passes over the training clips.
    """

    def __init__(self, plan: Plan, config: CompareConfig, epochs: int) -> None:
        from importlib.metadata import version

        self._of_split = [[_digest(_contents(plan, rows)) for rows in each] for each in plan.splits]
        self._same = {
            "format": FORMAT,
            "versions": [version("vidfuse"), version("torch")],
            "settings": config.affecting_result(),
            "epochs": epochs,
            "classes": plan.classes,
        }
        self._config = config

    def key(self, task: Task, spec: FeatureSpec) -> str:
        """Sixteen hexadecimal digits.

        Args:
            task: Which fit.
            spec: The features that its head reads.
        """
        cls = head_class(task.head)
        defaults = {name: str(known.default) for name, known in cls.known_settings().items()}
        training = self._config.training(task.head, epochs=self._same["epochs"])
        own = [
            training.affecting_result(),
            defaults,
            spec.digest,
            task.seed,
            self._of_split[task.seed][task.fold],
        ]
        if task.head not in HEADS:  # no version of ours tells that its author has changed it
            own.append(hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest())
        return _digest([self._same, own])[:16]


def budget_key(plan: Plan, config: CompareConfig, grids: Mapping[str, Grid]) -> str:
    """Names a choice of the number of epochs by everything that it was made for."""
    settings = {name: value for name, value in config.to_dict().items() if name != "out"}
    return _digest([settings, grids, [_contents(plan, rows) for rows in plan.splits[0]]])


def _contents(plan: Plan, rows: Rows) -> Any:
    return {
        part: [
            (plan.contents[i], plan.clips[i].start, plan.clips[i].end, plan.clips[i].label)
            for i in places
        ]
        for part, places in rows.items()
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
