"""What long work tells whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence


class Progress:
    """Hears of progress and does nothing with it; the command line shows it instead."""

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
