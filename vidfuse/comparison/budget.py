"""Estimates of how long a comparison takes, and the number of epochs that fit into a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidfuse.atomic import write_whole
from vidfuse.comparison.plan import Candidate
from vidfuse.errors import UserError
from vidfuse.progress import Reporter

RESERVE = 1.15
"""Time for what is not training (tests, files, the last fits' end), as a factor."""
FEW_EPOCHS = 10
"""With fewer than this, most heads have learned little."""


@dataclass(frozen=True)
class Estimate:
    """Estimated time of a comparison.

    Attributes:
        seconds_per_epoch: Of a fit of each candidate, measured with all processes at work.
        fits: Number of fits of each candidate that are to be done.
        jobs: Number of fits at once.
    """

    seconds_per_epoch: Mapping[Candidate, float]
    fits: Mapping[Candidate, int]
    jobs: int

    def seconds(self, epochs: int) -> float:
        """Estimated seconds of all fits with so many epochs."""
        once = sum(self.seconds_per_epoch[each] * count for each, count in self.fits.items())
        return RESERVE * once * epochs / self.jobs

    def epochs_within(self, seconds: float, most: int) -> int:
        """The most epochs, the same for every head, that fit into a time.

        Raises:
            UserError: Not even one does.
        """
        within = min(most, int(seconds / max(self.seconds(1), 1e-9)))
        if within < 1:
            raise UserError(
                f"a budget of {format_duration(seconds)} is too small: one epoch of every fit "
                f"takes about {format_duration(self.seconds(1))}",
                "Give more time with --budget, or compare fewer --heads, --seeds or --folds.",
            )
        return within


class Budgets:
    """Numbers of epochs that were chosen before, so that a comparison goes on with its own.

    Args:
        path: The file that keeps them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, key: str) -> int | None:
        """The number chosen for these settings, None where none was."""
        return self._read().get(key)

    def keep(self, key: str, epochs: int) -> None:
        """Remember a number."""
        write_whole(self.path, json.dumps(self._read() | {key: epochs}))

    def _read(self) -> dict[str, int]:
        try:
            numbers = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return numbers if isinstance(numbers, dict) else {}


def announce(epochs: int, most: int, estimate: Estimate, reporter: Reporter) -> None:
    """Print the number of fits and their estimated time; warn of too few epochs."""
    fits = sum(estimate.fits.values())
    reporter.info(
        f"{fits} fits of {epochs} epochs in {estimate.jobs} process"
        f"{'es' * (estimate.jobs > 1)}: about {format_duration(estimate.seconds(epochs))}"
    )
    if epochs < min(FEW_EPOCHS, most):
        reporter.warn(
            f"{epochs} epochs are few: heads that learn slowly are at a disadvantage; "
            "give more time with --budget"
        )


def format_duration(seconds: float) -> str:
    """A duration in the unit that fits."""
    if seconds < 90:
        return f"{max(seconds, 0.1):.0f} s" if seconds >= 1 else f"{max(seconds, 0.001):.2g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
