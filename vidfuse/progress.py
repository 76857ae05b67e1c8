"""Progress reporting: what a command is doing, what may be wrong, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

IMPORTS = "imports"
OTHER = "other"


class Reporter:
    """Receives progress updates and warnings, and collects the time of each stage.

    This one shows nothing; the command line prints. A stage's time is its own: while a stage within
    it is measured, it stands still. Only the thread that does the command's work measures; of what
    others do it measures how long it waits for them.

    Args:
        began: When the command began, by the clock; until now it has imported what it needs. None
            is now.
        clock: Tells the time in seconds.

    Attributes:
        seconds: Stage → seconds so far.
        moments: Name → seconds from the beginning of the command to a moment.
    """

    def __init__(
        self, began: float | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self.began = clock() if began is None else began
        self.seconds: dict[str, float] = {}
        self.moments: dict[str, float] = {}
        self._stages = [OTHER]  # from the outermost to the one that is at work
        self._until = self.began  # up to here all time belongs to a stage
        if began is not None:
            self._count(IMPORTS)

    def start(self, task: str, total: int) -> None:
        """A task of ``total`` steps begins."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some steps of the task are done; ``note`` says how it goes."""

    def board(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table that says how things stand while the task goes on; the next one replaces it."""

    def finish(self) -> None:
        """The task is over."""

    def info(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may be wrong."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the time that a block takes for a stage, but for that of stages within."""
        self._count(self._stages[-1])
        self._stages.append(stage)
        try:
            yield
        finally:
            self._count(self._stages.pop())

    def expect(self, *stages: str) -> None:
        """Name stages that are listed even if they take no time."""
        for stage in stages:
            self.seconds.setdefault(stage, 0.0)

    def note(self, name: str, moment: float) -> None:
        """Record when something happened for the first time, by the clock."""
        self.moments.setdefault(name, moment - self.began)

    def timings(self) -> dict[str, float]:
        """All stages, moments and the total so far, in seconds.

        The time in no stage is ``other``. Stages add up to ``total``, but for rounding.
        """
        self._count(self._stages[-1])
        stages = {stage: t for stage, t in self.seconds.items() if stage != OTHER}
        rest = {OTHER: self.seconds.get(OTHER, 0.0)}
        told = stages | rest | self.moments | {"total": self._until - self.began}
        return {name: round(t, 4) for name, t in told.items()}

    def _count(self, stage: str) -> None:
        now = self._clock()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._until
        self._until = now
