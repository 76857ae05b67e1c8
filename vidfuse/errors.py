"""Errors that a user can do something about, and their exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike


class UserError(Exception):
    """Something the user asked for cannot be done as asked.

    Args:
        message: What happened, naming the file or option concerned.
        hint: What to do next.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(UserError):
    """One input (a video, an image, a list) cannot be used; the others may still be fine."""

    exit_code = 1

    def __init__(self, path: str | PathLike[str], reason: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = str(path)
        self.reason = reason


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that one was probably meant to be; None where none is like it."""
    return next(iter(get_close_matches(name, list(known), n=1)), None)


class UnknownNameError(UserError):
    """A name that is not in a registry: lists the known ones and the closest match."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = closest(name, names)
        guess = f" Did you mean '{close}'?" if close else ""
        super().__init__(f"unknown {kind} '{name}'.{guess}", f"Known: {', '.join(names)}")


def first_sentence(error: Exception) -> str:
    """What an error of another library says, without its advice to programmers."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:150]


def raise_if_out_of_memory(error: Exception) -> None:
    """Raise what torch says of memory as what it is; torch calls it a ``RuntimeError``."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        raise MemoryError(first_sentence(error)) from error
