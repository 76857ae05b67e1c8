"""One comparison at a time in a folder: two would replace each other's features and results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidfuse.errors import UserError

LOCK = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: Another comparison holds it, or it cannot be written to.
    """
    path = folder / LOCK
    try:
        file = path.open("ab")
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror or error})",
            "Name another folder with --out.",
        ) from error
    with file:
        try:
            _lock(file.fileno())
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f"another comparison is at work in {folder}",
                "Wait until it has ended, or name another folder with --out.",
            ) from error
        try:
            yield
        finally:
            file.close()  # Windows removes no file that is open
            path.unlink(missing_ok=True)


def _lock(file: int) -> None:
    """Lock an open file, or raise at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import errno
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise  # some network drives know no locks
