"""Cross-validation: every clip is tested once, by a model that has not seen its group."""

from __future__ import annotations

from dataclasses import dataclass

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.splits import VAL_FRACTION, Split
from vidfuse.data.units import clip_key, divide, make_units
from vidfuse.errors import UserError


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


def make_folds(dataset: Dataset, folds: int, *, split: str = "auto", seed: int = 0) -> Folds:
    """Divide a dataset's labelled clips into folds by group; the dataset's own split is ignored.

    Args:
        dataset: The clips.
        folds: K, at least 2.
        split: ``random`` ignores groups too; everything else goes by group where groups are known.
        seed: Decides which of equally good groups go where.

    Raises:
        UserError: There are fewer groups than folds, or too few for an inner validation part.
    """
    clips = sorted((clip for clip in dataset.clips if clip.label is not None), key=clip_key)
    by_group = split != "random" and any(clip.group for clip in clips)
    units = make_units(clips, by_group=by_group) if clips else []
    count, what = len(set(units)), "groups" if by_group else "video files"
    if not 2 <= folds <= count or count < 3:
        raise UserError(
            f"{dataset.root}: {count} {what} cannot make {folds} folds",
            f"Choose --folds from 2 to {count}." if count > 2 else "Add clips or groups.",
        )
    warnings = []
    if unlabelled := len(dataset.clips) - len(clips):
        warnings.append(f"{unlabelled} clips without a label were left out")
    if not by_group:
        warnings.append("random folds: near-duplicates may straddle them and the score may flatter")
    tests = divide(clips, units, [1 / folds] * folds, seed)
    splits = []
    how = f"{folds} folds {'by group' if by_group else 'at random'}, seed {seed}"
    for number, test in enumerate(tests, start=1):
        held = set(test)
        rest = [clip for clip in clips if clip not in held]
        inner = make_units(rest, by_group=by_group)
        train, val = divide(rest, inner, (1 - VAL_FRACTION, VAL_FRACTION), seed)
        if not (train and val and test):
            raise UserError(
                f"{dataset.root}: fold {number} of {folds} has no clips to test or to validate on",
                "Choose fewer --folds, or --split random.",
            )
        splits.append(Split(train, val, test, f"fold {number} of {how}", []))
    return Folds(splits, f"{how} ({count} {what}); validation: 15 % of the rest", warnings)
