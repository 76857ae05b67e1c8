"""Cross-validation: every clip is tested once, by a model that has not seen its group."""

from __future__ import annotations

from dataclasses import dataclass

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.grouping import Contents, clip_key, divide, listing, make_units
from vidfuse.data.splits import VAL_FRACTION, Split
from vidfuse.errors import UnknownNameError, UserError


@dataclass(frozen=True, slots=True)
class Folds:
    """Outer folds, each with an inner split of the rest.

    Attributes:
        splits: One per fold; its ``test`` is the fold.
        protocol: How they came about, in one line.
        warnings: What weakens the measurement, one line each.
    """

    splits: list[Split]
    protocol: str
    warnings: list[str]

    @property
    def clips(self) -> list[Clip]:
        """All clips that are tested."""
        return [clip for split in self.splits for clip in split.test]


def make_folds(
    dataset: Dataset,
    folds: int,
    *,
    split: str = "auto",
    seed: int = 0,
    contents: Contents | None = None,
) -> Folds:
    """Divide a dataset's labelled clips into folds by group; the dataset's own split is ignored.

    Args:
        dataset: The clips.
        folds: K, at least 2.
        split: ``auto`` (by group where groups are known), ``group`` or ``random``.
        seed: Decides which of equally good groups go where.
        contents: Content hashes of files, so that copies of one stay together.

    Raises:
        UserError: There are fewer groups than folds, or too few for an inner validation part.
    """
    if split.isdecimal():
        raise UserError(
            f"--split {split} and --folds exclude each other: folds divide all clips anew",
            "Leave one of them out.",
        )
    if split not in ("auto", "group", "random"):
        raise UnknownNameError("split", split, ("auto", "group", "random"))
    clips = sorted((clip for clip in dataset.clips if clip.label is not None), key=clip_key)
    grouped = sum(clip.group is not None for clip in clips)
    if split == "group" and not grouped:
        raise UserError(
            f"{dataset.root}: no groups are known, so there is nothing to divide by",
            "Name them in a manifest's column 'group', or use --split random.",
        )
    by_group = bool(grouped) and split != "random"
    contents = contents or {}
    units = make_units(clips, contents, by_group=by_group) if clips else []
    count, what = len(set(units)), "groups" if by_group else "video files"
    if count < 3:
        what = what.removesuffix("s") if count == 1 else what
        raise UserError(
            f"{dataset.root}: {count} {what} cannot make folds",
            "Three are the least: to learn, to choose and to test by. Add clips or groups.",
        )
    least = 2 if count > 3 else 3  # two folds of three leave one without validation
    if not least <= folds <= count:
        raise UserError(
            f"{dataset.root}: {count} {what} cannot make {folds} folds",
            f"Choose --folds from {least} to {count}." if least < count else "Use --folds 3.",
        )
    warnings = []
    if unlabelled := len(dataset.clips) - len(clips):
        warnings.append(f"{unlabelled} clips without a label were left out")
    if not by_group:
        warnings.append(
            "random folds: similar clips may be in several folds, so the score may be too high"
        )
    elif grouped < len(clips):
        warnings.append(f"{len(clips) - grouped} clips have no group: each file counts as its own")
    tests = divide(clips, units, [1 / folds] * folds, seed)
    if not all(tests):
        tests = _deal(clips, units, folds)
    warnings += _unlearnable(tests)
    splits = []
    how = f"{folds} folds {'by group' if by_group else 'at random'}, seed {seed}"
    for number, test in enumerate(tests, start=1):
        held = set(test)
        rest = [clip for clip in clips if clip not in held]
        inner = make_units(rest, contents, by_group=by_group)
        train, val = divide(rest, inner, (1 - VAL_FRACTION, VAL_FRACTION), seed)
        if not (train and val and test):
            raise UserError(
                f"{dataset.root}: {count} {what} are too few for {folds} folds: without fold "
                f"{number} there is no class that both training and validation can have",
                "Choose another number of --folds, or add clips or groups.",
            )
        splits.append(Split(train, val, test, f"fold {number} of {how}", []))
    return Folds(splits, f"{how} ({count} {what}); validation: 15 % of the rest", warnings)


def _deal(clips: list[Clip], units: list[int], folds: int) -> list[list[Clip]]:
    """Deal units out in turn, those of the same classes one after another: no fold is empty."""
    labels: dict[int, list[str]] = {}
    for clip, unit in zip(clips, units, strict=True):
        labels.setdefault(unit, []).append(str(clip.label))
    order = sorted(labels, key=lambda unit: (sorted(labels[unit]), unit))
    fold_of = {unit: place % folds for place, unit in enumerate(order)}
    parts: list[list[Clip]] = [[] for _ in range(folds)]
    for clip, unit in zip(clips, units, strict=True):
        parts[fold_of[unit]].append(clip)
    return parts


def _unlearnable(tests: list[list[Clip]]) -> list[str]:
    """Classes that only one fold has, so that nobody can learn them for its test."""
    labels = [{str(clip.label) for clip in test} for test in tests]
    alone = {name for each in labels for name in each if sum(name in other for other in labels) < 2}
    if not alone:
        return []
    return [f"classes in one fold only, so its model cannot know them: {listing(alone)}"]
