"""How fast an extraction goes, and what it waits for."""

from __future__ import annotations

import time

from vidfuse.timing import Timings

STAGES = ("decode", "forward", "write")


class Pace:
    """Counts what is done, from now on.

    Args:
        timings: Knows how long each of ``STAGES`` was waited for.
    """

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._before = dict(timings.seconds)
        self._began = time.perf_counter()
        self.clips = self.pictures = self.failures = 0

    def done(self, pictures: int) -> None:
        """Count a clip."""
        self.clips += 1
        self.pictures += pictures

    def failed(self) -> None:
        """Count a clip that could not be read."""
        self.failures += 1

    def bottleneck(self) -> str:
        """The stage that was waited for longest."""
        now, before = self._timings.seconds, self._before
        return max(STAGES, key=lambda stage: now.get(stage, 0.0) - before.get(stage, 0.0))

    def note(self) -> str:
        """One line for whoever watches."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        failed = f", {self.failures} failed" if self.failures else ""
        return (
            f"{self.clips / seconds:.1f} clips/s, {self.pictures / seconds:.0f} frames/s"
            f"{failed}, waiting for {self.bottleneck()}"
        )
