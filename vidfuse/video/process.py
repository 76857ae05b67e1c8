"""One decode process, seen from the program: orders go in, frames come out."""

from __future__ import annotations

import os
from typing import Any

from vidfuse.rpc import Answer, Child
from vidfuse.video.shared import SharedMemory, new_block


class DecodeProcess(Child):
    """One decode process, which runs ``vidfuse.video.worker``.

    Frames come through memory that both share, where the system has such without a name, and
    through the pipe otherwise.

    Args:
        backend: The decoder that it will use; one process uses one.
        memory: Bytes that it may take beyond what its libraries take.
    """

    def __init__(self, backend: str, memory: int) -> None:
        block = new_block()
        passed = [] if block is None else [block]
        try:
            self.memory = None if block is None else SharedMemory(block)
            arguments = [backend, str(memory), *map(str, passed)]
            super().__init__("vidfuse.video.worker:main", arguments, passed)
        finally:
            if block is not None:
                os.close(block)

    def ask(self, order: dict[str, Any], limit: float | None = None) -> tuple[Answer, bytes]:
        """Send an order and wait for its answer.

        Raises:
            ChildEndedError: The process died, or took longer than ``limit`` seconds.
        """
        header, payload = super().ask(order | {"limit": limit}, limit)
        shared = header.pop("shared", None)
        if shared is not None:
            assert self.memory is not None
            payload = self.memory.take(shared)
        return header, payload

    def close(self) -> None:
        """End it, also when it is busy."""
        super().close()
        if self.memory is not None:
            self.memory.close()
