"""Memory that the program shares with a decode process, for pictures on their way between them."""

from __future__ import annotations

import mmap
import os

from vidfuse.video.frames import Pictures

# Of one process; pages are only taken when pictures come. Larger answers go through the pipe.
SIZE = 2**25


class SharedMemory:
    """A block without a name, so nothing is left of it however the processes end.

    Args:
        descriptor: Of a block that `new_block` made; it stays the caller's to close.
    """

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)

    def put(self, pictures: Pictures) -> bool:
        """Lay pictures into it, unless they are too large."""
        if pictures.nbytes > SIZE:
            return False
        if pictures.nbytes:  # of nothing there is no view as bytes
            self._map[: pictures.nbytes] = pictures.data.cast("B")
        return True

    def take(self, size: int) -> bytes:
        """A copy of the first ``size`` bytes."""
        return self._map[:size]

    def close(self) -> None:
        """Give up this side of it."""
        self._map.close()


def new_block() -> int | None:
    """The descriptor of a new block; None where the system gives none without a name.

    Linux does, unless a sandbox or a limit forbids it.
    """
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("vidfuse-pictures")
    except OSError:
        return None
    try:
        os.ftruncate(descriptor, SIZE)
        mmap.mmap(descriptor, SIZE).close()
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
