"""One process at a time in a folder: two would replace each other's files."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidfuse.errors import UserError, reason_of

LOCK = ".lock"
# What network drives that know no locks answer: there nobody is kept out.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def alone_in(folder: Path, who: str) -> Iterator[None]:
    """Hold a folder; the system lets go of it when the process ends, however it ends.

    The lock's file stays: whoever removed it would let two processes hold different files.

    Args:
        folder: It exists.
        who: What is kept out, such as "another comparison".

    Raises:
        UserError: Another process holds it, or it cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{who} is at work in {folder}",
            "Wait until it has ended, or name another folder with --out.",
        ) from error
    except NotImplementedError:
        pass  # earlier versions of filelock say so of ENOSYS
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise UserError(
                f"cannot write to {folder} ({reason_of(error)})",
                "Name another folder with --out.",
            ) from error
    try:
        yield
    finally:
        lock.release()
