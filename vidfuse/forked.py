"""Work in a process that was forked: the threads of its parent are not there.

torch's OpenMP does not know, and waits for them for ever as soon as it wants several; with one
thread it needs none of them. PyTorch's own ``DataLoader`` computes so in its processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TypeVar

from vidfuse.errors import UserError

Item = TypeVar("Item")

_had_torch = False


def _remember() -> None:
    global _had_torch
    _had_torch = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember)


def compute_alone() -> None:
    """Have torch compute with one thread where this process was forked from one that had torch."""
    if _had_torch:
        import torch

        torch.set_num_threads(1)


def not_in_a_fork(items: Iterator[Item]) -> Iterator[Item]:
    """The items, in the process that asked for them; in one forked from it, an error.

    Raises:
        UserError: The process is another one, which does not have the threads that make the items.
    """
    owner = os.getpid()
    while True:
        if os.getpid() != owner:
            raise UserError(
                "these records were begun in another process, of which this one was forked",
                "Call vidfuse.predict again in the forked process.",
            )
        try:
            item = next(items)
        except StopIteration:
            return
        yield item
