"""Errors that a user can do something about, and their exit codes."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike


class UserError(Exception):
    """Something the user asked for cannot be done as asked.

    Args:
        message: The problem, naming the file or option concerned.
        hint: The next step for the user.
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


class UnwritableError(UserError):
    """A file cannot be written: a full disk, a limit, a folder of somebody else's."""

    def __init__(self, path: str | PathLike[str], error: OSError, hint: str | None = None) -> None:
        super().__init__(f"cannot write {path} ({reason_of(error)})", hint)
        self.reason = reason_of(error)


def reason_of(error: OSError) -> str:
    """The operating system's reason in a few words; not every library passes it on."""
    return error.strerror or str(error) or type(error).__name__


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is closest to a mistyped one; None where none is like it."""
    names = {each.lower(): each for each in known}
    return next((names[each] for each in get_close_matches(name.lower(), names, n=1)), None)


class UnknownNameError(UserError):
    """A name that is not in a registry: tells the closest match.

    Args:
        kind: What it should name.
        name: As the user gave it.
        known: The names that there are.
        hint: How to see them; None lists them all.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str | None = None) -> None:
        self.kind, self.name = kind, name
        names = sorted(known)
        close = closest(name, names)
        guess = f" Did you mean '{close}'?" if close else ""
        super().__init__(f"unknown {kind} '{name}'.{guess}", hint or f"Known: {', '.join(names)}")


def first_sentence(error: Exception) -> str:
    """The message of another library's error, without its advice to programmers."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:150]


# What the system refused, by number → what to do about it.
_OS_HINTS = {
    "Check that the disk has room.": (errno.ENOSPC, errno.EDQUOT),
    "Check the limit on the size of files: ulimit -f": (errno.EFBIG,),
    "Check that the file may be read and written.": (errno.EACCES, errno.EPERM, errno.EROFS),
    "Raise the limit of open files (ulimit -n), or use fewer --workers.": (
        errno.EMFILE,
        errno.ENFILE,
    ),
    "Check the symbolic links on the way: some lead back to themselves.": (errno.ELOOP,),
    "Choose a shorter name.": (errno.ENAMETOOLONG,),
    "Check that the disk works, and whether the system has messages about it.": (errno.EIO,),
    "Give it more memory, or use fewer --workers.": (errno.ENOMEM,),
}


def os_error_hint(error: OSError) -> str | None:
    """A hint on an error of the operating system; None where that depends."""
    return next((hint for hint, numbers in _OS_HINTS.items() if error.errno in numbers), None)


def raise_if_out_of_memory(error: Exception) -> None:
    """Raise ``MemoryError`` for an error of torch about memory, which is a ``RuntimeError``."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        raise MemoryError(first_sentence(error)) from error
