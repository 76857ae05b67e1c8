"""The split of a dataset: clips to train on, to choose the checkpoint, and to measure on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.grouping import Contents, clip_key, divide, listing, make_units
from vidfuse.errors import UnknownNameError, UserError

PARTS = ("train", "val", "test")
"""Names of the parts of a split, in order."""

FRACTIONS = (0.70, 0.15, 0.15)
"""Share of the clips for each part where the dataset does not say."""

VAL_FRACTION = 0.15
"""Share of a train part that becomes validation where it has none of its own."""

_TOLERANCE = 0.10  # how far a part may be from its share before that is worth a warning


@dataclass(frozen=True, slots=True)
class Split:
    """The labelled clips of a dataset in three parts.

    Attributes:
        train: Clips to fit on.
        val: Clips for the choice of checkpoint and settings; they count as seen.
        test: Clips to measure on; empty only where an official split has no test part.
        protocol: How the parts came about, in one line for screen, run and model file.
        warnings: What weakens the measurement, one line each.
    """

    train: list[Clip]
    val: list[Clip]
    test: list[Clip]
    protocol: str
    warnings: list[str]


def make_split(
    dataset: Dataset, *, split: str = "auto", seed: int = 0, contents: Contents | None = None
) -> Split:
    """Divide a dataset's labelled clips into train, val and test.

    No group, no file and no content is on two sides, unless an official split puts it there. The
    result depends on the clips and the seed only, not on the order of the clips.

    Args:
        dataset: The clips, with their groups and the dataset's own split where it has one.
        split: ``auto`` (the dataset's own split, else by group, else at random), ``group``,
            ``random``, or the number of an official split, which ``read_dataset`` was given too.
        seed: Decides which of equally good groups go where.
        contents: Content hashes of files, so that copies of one stay together.

    Returns:
        The parts, with the protocol and warnings.

    Raises:
        UserError: There are no labelled clips, no such split, or too few groups for three parts.
    """
    if split not in ("auto", "group", "random") and not split.isdecimal():
        raise UnknownNameError("split", split, ("auto", "group", "random", "1", "2", "3"))
    clips = sorted((clip for clip in dataset.clips if clip.label is not None), key=clip_key)
    if not clips:
        why = f" ({dataset.problems[0]})" if dataset.problems else ""
        raise UserError(
            f"{dataset.root}: none of the {len(dataset.clips)} clips has a label{why}",
            "Training needs a class folder or a manifest's label for each clip.",
        )
    warnings: list[str] = []
    if unlabelled := len(dataset.clips) - len(clips):
        warnings.append(f"{unlabelled} clips without a label were left out")
    declared = {clip.split for clip in clips} - {None}
    if split.isdecimal():
        _check_official(dataset, declared, split)
    if split.isdecimal() or (split == "auto" and len(declared) > 1):
        return _official_split(dataset, clips, contents or {}, seed, warnings)
    if split == "auto" and declared:
        (only,) = declared
        warnings.append(f"the dataset's own split has only {only} clips and was not used")
    return _own_split(dataset, clips, contents or {}, split, seed, warnings)


def duplicates_across(parts: Mapping[str, Iterable[tuple[Clip, str]]]) -> list[str]:
    """Clips with the same content (bytes, start and end) in more than one part.

    Args:
        parts: For each part its clips, with the content hash of each.

    Returns:
        One line for each content that occurs in several parts.
    """
    seen: dict[tuple[str, float, float | None], dict[str, list[Clip]]] = {}
    for part, clips in parts.items():
        for clip, digest in clips:
            key = (digest, clip.start or 0.0, clip.end)
            seen.setdefault(key, {}).setdefault(part, []).append(clip)
    return [
        "same content: "
        + " and ".join(
            f"{listing([clip.name for clip in found])} ({part})" for part, found in sides.items()
        )
        for sides in seen.values()
        if len(sides) > 1
    ]


def _check_official(dataset: Dataset, declared: set[str | None], split: str) -> None:
    number = dataset.split_number or "1"
    if len(declared) < 2:
        raise UserError(
            f"{dataset.root}: there is no official split '{split}' for this dataset",
            "Use --split auto, group or random.",
        )
    if int(split) != int(number):
        raise UserError(
            f"{dataset.root}: split '{split}' was asked for, but split {number} was read",
            "Pass the same split to read_dataset." if dataset.split_number else "Use --split 1.",
        )


def _official_split(
    dataset: Dataset, clips: list[Clip], contents: Contents, seed: int, warnings: list[str]
) -> Split:
    parts = {part: [clip for clip in clips if clip.split == part] for part in PARTS}
    train, val, test = parts.values()
    if not train:
        raise UserError(
            f"{dataset.root}: the dataset's own split has no labelled train clips",
            "Use --split group or --split random to divide the clips anew.",
        )
    if outside := sum(clip.split is None for clip in clips):
        warnings.append(f"{outside} clips belong to no part of the official split: left out")
    known = {
        part: [(clip, contents[clip.path]) for clip in of_part if clip.path in contents]
        for part, of_part in parts.items()
    }
    warnings += duplicates_across(known) + _straddling(parts)
    number = f" {dataset.split_number}" if dataset.split_number else ""
    protocol = f"official split{number} ({dataset.split_source or 'declared by the dataset'})"
    if not val:
        by_group = any(clip.group for clip in train)
        units = make_units(train, contents, by_group=True)
        train, val = divide(
            train, units, (1 - VAL_FRACTION, VAL_FRACTION), seed, dataset.frame_classes
        )
        if not val:
            raise UserError(
                f"{dataset.root}: the official train part cannot give up a validation part, "
                "because no class has two groups in it",
                "Mark some clips as val, or use --split random.",
            )
        how = "by group" if by_group else "at random"
        protocol += f"; validation: {VAL_FRACTION * 100:.0f} % of train {how}, seed {seed}"
        if not by_group:
            protocol += ": no groups known"
            warnings.append(
                "no groups are known, so similar clips may be in both train and validation"
            )
    if not test:
        protocol += "; no test part"
        warnings.append("the official split has no test clips: nothing is left to measure on")
    return Split(train, val, test, protocol, warnings + _absent_classes(dataset, train, val, test))


def _way_out(clips: list[Clip], contents: Contents, seed: int, *, by_group: bool) -> str:
    """Advice where a split is not possible; --split random only where that one is."""
    if not by_group:
        return "Add videos."
    units = make_units(clips, contents, by_group=False)
    if len(set(units)) >= len(PARTS) and all(divide(clips, units, FRACTIONS, seed)[1:]):
        return (
            "Use --split random: clips of one group may then be on both sides, so the score may be "
            "too high."
        )
    return "Add videos, of more groups."


def _own_split(
    dataset: Dataset,
    clips: list[Clip],
    contents: Contents,
    split: str,
    seed: int,
    warnings: list[str],
) -> Split:
    grouped = sum(clip.group is not None for clip in clips)
    if split == "group" and not grouped:
        raise UserError(
            f"{dataset.root}: no groups are known, so there is nothing to split by",
            "Name them in a manifest's column 'group', or use --split random.",
        )
    by_group = bool(grouped) and split != "random"
    units = make_units(clips, contents, by_group=by_group)
    count = len(set(units))
    shares = "/".join(f"{fraction * 100:.0f}" for fraction in FRACTIONS)
    what = "groups" if by_group else "video files"
    if count < len(PARTS):
        raise UserError(
            f"{dataset.root}: {count} {what} are too few for train, validation and test",
            _way_out(clips, contents, seed, by_group=by_group),
        )
    train, val, test = divide(clips, units, FRACTIONS, seed, dataset.frame_classes)
    if not val or not test:
        raise UserError(
            f"{dataset.root}: too many classes have all their clips in one of the {count} {what}: "
            "once each class has clips to train on, validation or test is empty",
            _way_out(clips, contents, seed, by_group=by_group),
        )
    if by_group:
        protocol = f"by group {shares}, seed {seed} ({count} groups)"
        if grouped < len(clips):
            warnings.append(
                f"{len(clips) - grouped} clips have no group: each file counts as its own"
            )
    else:
        why = "groups ignored as asked" if grouped else "no groups known"
        similar = f"{why}, so similar clips may be in both train and test"
        protocol = f"random {shares}, seed {seed}: {similar}"
        warnings.append(f"random split: {similar}, and the score may be too high")
    warnings += _uneven((train, val, test), what) + _absent_classes(dataset, train, val, test)
    return Split(train, val, test, protocol, warnings)


def _straddling(parts: Mapping[str, Sequence[Clip]]) -> list[str]:
    warnings = []
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        for what, attribute in (("groups", "group"), ("files", "path")):
            here, there = ({getattr(c, attribute) for c in parts[p]} for p in (one, other))
            shared = [str(value) for value in here & there if value is not None]
            if shared:
                warnings.append(
                    f"the official split has {len(shared)} {what} in both {one} and {other}: "
                    f"{listing(shared)}"
                )
    return warnings


def _absent_classes(
    dataset: Dataset, train: list[Clip], val: list[Clip], test: list[Clip]
) -> list[str]:
    present = [
        {name for clip in clips for name in dataset.frame_classes.get(clip, (str(clip.label),))}
        for clips in (train, val, test)
    ]
    everywhere = set().union(*present)
    lines = (
        (present[0], "not in train, so they cannot be learned", bool(train)),
        (present[1], "not in validation", bool(val)),
        (present[2], "not in test, so they are not measured", bool(test)),
    )
    return [
        f"classes {what}: {listing(everywhere - labels)}"
        for labels, what, applies in lines
        if applies and everywhere - labels
    ]


def _uneven(parts: Sequence[Sequence[Clip]], what: str) -> list[str]:
    total = sum(map(len, parts))
    shares = [len(part) / total for part in parts]
    if all(abs(s - f) <= _TOLERANCE for s, f in zip(shares, FRACTIONS, strict=True)):
        return []
    sizes = ", ".join(f"{p} {s:.0%}" for p, s in zip(PARTS, shares, strict=True))
    return [f"the parts are far from their shares ({sizes}): too few or too large {what}"]
