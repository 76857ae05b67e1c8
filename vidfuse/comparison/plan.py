"""The plan of a comparison: clips, candidates, folds for each seed, and the fits to be done."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import Grid
from vidfuse.comparison.config import CompareConfig
from vidfuse.data.clip import Clip
from vidfuse.data.folds import Folds
from vidfuse.data.splits import PARTS, Split
from vidfuse.features.spec import FeatureSpec
from vidfuse.heads import HEADS, head_class
from vidfuse.heads.registry import options_of
from vidfuse.training.config import TrainConfig

FORMAT = 4
"""Version of the files of fits; those of another version are not used again."""

Rows = dict[str, list[int]]
"""The clips of each part of a split, as indices into the plan's list."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A head on the features of an encoder.

    Attributes:
        head: The head's name.
        backbone: The encoder's, as the settings name it.
        grid: Side of the features' grid.
    """

    head: str
    backbone: str
    grid: Grid


@dataclass(frozen=True, slots=True)
class Task:
    """A candidate on one fold of one seed: a search, and the fits that are measured."""

    candidate: Candidate
    seed: int
    fold: int


@dataclass(frozen=True)
class Plan:
    """The clips of training, validation and test in each fold; the same for every head.

    Attributes:
        clips: All clips that can be read.
        contents: Content hash of each.
        classes: Names of the C classes.
        splits: For each seed and each fold, the indices of its clips in ``clips``.
        protocol: Description of how the folds were made, in one line.
        warnings: Weaknesses of the comparison, one line each.
    """

    clips: list[Clip]
    contents: list[str]
    classes: list[str]
    splits: list[list[Rows]]
    protocol: str
    warnings: list[str] = field(default_factory=list)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each clip [N], as an index into ``classes``."""
        index_of = {name: index for index, name in enumerate(self.classes)}
        return np.array([index_of[str(clip.label)] for clip in self.clips])

    @property
    def groups(self) -> list[str | None]:
        """Group of each clip."""
        return [clip.group for clip in self.clips]

    def tasks(self, candidates: Sequence[Candidate]) -> Iterator[Task]:
        """All of them, a seed and a fold after the other, so that candidates advance together."""
        for seed, folds in enumerate(self.splits):
            for fold, rows in enumerate(folds):
                if rows["test"]:
                    yield from (Task(candidate, seed, fold) for candidate in candidates)

    def held(self, seed: int) -> Iterator[NDArray[np.bool_]]:
        """Masks [N] of the clips that each fold of a seed tests on."""
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
    """Make a plan of the clips that can be read and the folds of each seed.

    Args:
        clips: Those that can be read.
        contents: Content hash of each.
        folds: Those of each seed.
        warnings: Other weaknesses of the comparison.
    """
    index_of = {clip: index for index, clip in enumerate(clips)}

    def rows(split: Split) -> Rows:
        parts = {part: getattr(split, part) for part in PARTS}
        return {part: [index_of[c] for c in one if c in index_of] for part, one in parts.items()}

    return Plan(
        clips=list(clips),
        contents=list(contents),
        classes=sorted({str(clip.label) for clip in clips}),
        splits=[[rows(split) for split in each.splits] for each in folds],
        protocol=folds[0].protocol,
        warnings=list(
            dict.fromkeys([*warnings, *(line for each in folds for line in each.warnings)])
        ),
    )


@dataclass(frozen=True)
class FitSettings:
    """All that decides the fits of a candidate beside the clips.

    Attributes:
        spec: The features that its head reads.
        training: Settings of a fit.
        rest: What else decides, by name.
    """

    spec: FeatureSpec
    training: TrainConfig
    rest: Mapping[str, Any]


def fit_digests(plan: Plan, settings: Mapping[Candidate, FitSettings]) -> dict[Task, str]:
    """Digests of everything that decides the result of each task, which name its file.

    All settings count but those declared with ``affects_result=False``: one that is new makes
    other digests, and at worst a fit is done again, unless it says ``later=True``.

    Args:
        plan: The clips and folds.
        settings: The candidates, with what decides their fits.

    Returns:
        Sixteen hexadecimal digits for each task of these candidates.
    """
    of_split = [[_digest(_contents(plan, rows)) for rows in folds] for folds in plan.splits]
    versions = [version("vidfuse"), version("torch")]
    common: dict[Candidate, dict[str, Any]] = {}
    own: dict[Candidate, list[Any]] = {}
    code: dict[Candidate, list[str]] = {}
    for each, decides in settings.items():
        cls = head_class(each.head)
        defaults = {name: str(known.default) for name, known in options_of(cls).items()}
        common[each] = {
            "format": FORMAT,
            "versions": versions,
            "settings": decides.rest,
            "epochs": decides.training.epochs,
            "classes": plan.classes,
        }
        own[each] = [decides.training.digested(), defaults, decides.spec.digest]
        # No version of ours tells that the author of somebody else's head has changed it.
        code[each] = []
        if each.head not in HEADS:
            code[each].append(hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest())
    found = {}
    for task in plan.tasks(list(settings)):
        clips, each = of_split[task.seed][task.fold], task.candidate
        decides_all = [common[each], [*own[each], task.seed, clips, *code[each]]]
        found[task] = _digest(decides_all)[:16]
    return found


def budget_key(plan: Plan, config: CompareConfig, grids: Mapping[str, Grid]) -> str:
    """Digest of everything that the number of epochs within a budget was chosen for."""
    settings = {name: value for name, value in config.to_dict().items() if name != "out"}
    return _digest([settings, grids, [_contents(plan, rows) for rows in plan.splits[0]]])


def _contents(plan: Plan, rows: Rows) -> Any:
    return {
        part: [
            (plan.contents[i], plan.clips[i].start, plan.clips[i].end, plan.clips[i].label)
            for i in indices
        ]
        for part, indices in rows.items()
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
