"""Helpers of several layouts: names of clips and parts of a split, lists of lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vidfuse.data.files import describe_os_error, is_video
from vidfuse.errors import UserError

_SHOWN = 200  # characters of a name
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "test": "test",
    "testing": "test",
}


def part_of(text: str) -> str | None:
    """The part (``train``, ``val``, ``test``) that a folder or cell names, None for another."""
    return _PARTS.get(text.strip().casefold())


def choose_number(root: Path, numbers: Iterable[str], split: str | None) -> str:
    """The number of the official split to read.

    Args:
        root: The dataset.
        numbers: The splits that its lists declare, at least one.
        split: The one asked for; None is the first.

    Raises:
        UserError: There is no such split.
    """
    known = sorted(numbers, key=int)
    if split is None:
        return known[0]
    number = split.lstrip("0")
    if number not in known:
        raise UserError(f"{root}: there is no split '{split}'", f"It has: {', '.join(known)}")
    return number


def clip_stem(path: Path) -> str:
    """A clip's name without the suffix of a video; a frame folder's name is left whole."""
    return path.stem if is_video(path.name) else path.name


def read_lines(file: Path) -> list[str]:
    """The lines of a list that are not blank, stripped.

    Raises:
        UserError: It cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {describe_os_error(error)}", "Unpack the lists again.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text", "Unpack the lists again.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def report(problems: list[str], names: Sequence[str], what: str) -> None:
    """Add one line about clips that have the same problem, with the first of their names."""
    if names:
        more = ", …" if len(names) > 3 else ""
        first = [name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…" for name in names[:3]]
        problems.append(f"{len(names)} {what}: {', '.join(first)}{more}")
