"""Python's search for cycles of dead objects, at times when there are none."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_kept = False


def keep_imports() -> None:
    """Spare what `no_collection` imports from every later search, the last one at exit too.

    Only for a process that is the program's own: objects of somebody else's would be spared with
    it, such as open files in cycles, which then are not written to the end.
    """
    global _kept
    _kept = True


@contextmanager
def no_collection() -> Iterator[None]:
    """Make many objects that stay, such as those of a large library that is imported.

    Meanwhile the collector would look at all of them again and again and find nothing: an eighth
    of the time that importing torch takes.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        if _kept and "triton" not in sys.modules:  # it would count what is left, and complain
            gc.freeze()
