"""What several layouts share: names of datasets and of the parts of a split."""

from __future__ import annotations

from pathlib import Path

from vidfuse.errors import UserError

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def part_of(text: str) -> str | None:
    """The part (``train``, ``val``, ``test``) that a folder or cell names, None for another."""
    return _PARTS.get(text.strip().casefold())


def dataset_name(root: Path) -> str:
    """Name of the dataset in a folder or manifest; ``manifest.csv`` goes by its folder."""
    path = root.absolute() if root.name not in ("", "..") else root.resolve()
    if path.is_file():
        path = path.parent if path.stem.casefold() == "manifest" else path.with_suffix("")
    return path.name or "dataset"


def refuse_split_number(root: Path, split: str | None, *, has_split: bool) -> None:
    """Raise a UserError where a numbered official split is asked of a layout without any."""
    if split in (None, "1") and (has_split or split is None):
        return
    what = "declares one split, number 1" if has_split else "has no official split"
    raise UserError(
        f"{root}: there is no split '{split}'; this dataset {what}",
        "Use --split auto" + ("." if has_split else ", group or random."),
    )
