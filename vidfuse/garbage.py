"""Python's search for cycles of dead objects, at times when there are none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Do something that makes many objects which stay, such as importing a large library.

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
