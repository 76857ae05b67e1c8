"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile

from vidfuse.errors import UnwritableError

STEM = 40  # characters of a file's name that its temporary name repeats, so that it is no longer
LONGEST_NAME = 255  # bytes, nearly everywhere
ADVICE = "Check that the disk has room and that the folder may be written."


def write_whole(path: Path, content: bytes | str | Iterable[bytes], advice: str = ADVICE) -> None:
    """Put a file in place by a temporary name in the same folder, which is made if need be.

    A reader of the file sees the former one or the new one, whatever happens; a temporary file that
    could not be filled is removed.

    Args:
        path: The file; an existing one is replaced.
        content: All of it; text is encoded as UTF-8. Or its parts, each written when it comes.
        advice: Hint for the user where it cannot be written.

    Raises:
        UnwritableError: It cannot be written.
    """
    if isinstance(content, str):
        content = content.encode()
    partial = path.with_name(f"{path.name[:STEM]}.{os.getpid()}-{token_hex(4)}.partial")
    try:
        with writing(path, advice):
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                partial.write_bytes(content)
            else:
                with partial.open("wb") as file:
                    file.writelines(content)
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def append_line(path: Path, line: str, advice: str = ADVICE) -> None:
    """Add a line to a file; one that cannot be written whole is taken away again.

    Args:
        path: The file, made if need be.
        line: Without its end.
        advice: Hint for the user where it cannot be written.

    Raises:
        UnwritableError: It cannot be written.
    """
    with writing(path, advice):
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(f"{line}\n".encode())
        except BaseException:
            with suppress(OSError):
                os.truncate(path, size)
            raise


def make_writable(folder: Path, advice: str = ADVICE) -> None:
    """Make a folder and see that files can be written there: before long work, not after it.

    Raises:
        UnwritableError: They cannot.
    """
    with writing(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"x")


def longest_name(folder: Path) -> int:
    """The number of bytes that the name of a file in a folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # of Windows, or not known
        return LONGEST_NAME


@contextmanager
def writing(path: Path, advice: str) -> Iterator[None]:
    """Raise an error of the system as one that says which file cannot be written, and why.

    Args:
        path: The file, or folder.
        advice: Hint for the user.

    Raises:
        UnwritableError: In the place of ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise UnwritableError(path, error, advice) from error
