"""The time that an adaptation may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

READING = 0.5
"""Share of it after which no more is read, where what was read is enough to learn from."""


@dataclass(frozen=True)
class Budget:
    """The time that is left of that for everything.

    Attributes:
        text: As the user gave it, for messages; None is as long as it takes.
        seconds: In all; infinite without a budget.
        began: When the command did, by the monotonic clock.
    """

    text: str | None
    seconds: float
    began: float = field(default_factory=lambda: time.monotonic())

    @property
    def limited(self) -> bool:
        """True where there is one."""
        return self.text is not None

    def used(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of it is used up; below 0 where it is already."""
        return share * self.seconds - self.used()
