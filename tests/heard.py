"""A reporter that keeps what it is told, for tests of what a command says."""

from __future__ import annotations

from collections.abc import Sequence

from vidfuse.progress import Reporter


class Heard(Reporter):
    """Keeps warnings, notes and progress.

    Attributes:
        boards: The rows of every board, oldest first.
        tasks: The names of the tasks that began.
        total: Steps of the task that began last.
        steps: Steps done, of all tasks.
        finished: Tasks that ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []
        self.infos: list[str] = []
        self.boards: list[list[Sequence[str]]] = []
        self.tasks: list[str] = []
        self.total = self.steps = self.finished = 0

    def start(self, task: str, total: int) -> None:
        self.tasks.append(task)
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps

    def board(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.boards.append(list(rows))

    def finish(self) -> None:
        self.finished += 1

    def info(self, text: str) -> None:
        self.infos.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
