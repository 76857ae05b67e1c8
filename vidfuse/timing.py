"""Where the time of a command goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Seconds spent on each part of a command.

    Args:
        began: ``time.perf_counter()`` when the command began; None is now.
    """

    def __init__(self, began: float | None = None) -> None:
        self.began = time.perf_counter() if began is None else began
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time that a block takes to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - began)

    def add(self, part: str, seconds: float) -> None:
        """Add seconds to a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def since_start(self, part: str, moment: float | None = None) -> None:
        """Record how long after the beginning a moment (``time.perf_counter()``) came."""
        self.seconds[part] = (time.perf_counter() if moment is None else moment) - self.began

    def to_dict(self) -> dict[str, float]:
        """All parts and the total so far, in seconds."""
        parts = self.seconds | {"total": time.perf_counter() - self.began}
        return {part: round(seconds, 4) for part, seconds in parts.items()}
