"""All fits of a comparison: those that are kept are taken over, the others are carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.errors import UserError
from vidfuse.evaluation.compare.budget import Budgets, Estimate, announce, spoken
from vidfuse.evaluation.compare.config import CompareConfig
from vidfuse.evaluation.compare.kept import ORDERED, Kept, Outcome
from vidfuse.evaluation.compare.plan import Keys, Plan, Task, budget_key
from vidfuse.evaluation.compare.processes import Crew
from vidfuse.features.spec import FeatureSpec, Grid
from vidfuse.fusion import head_class
from vidfuse.progress import Progress


class Schedule:
    """What is to be done, and what came of it.

    Args:
        plan: The clips and folds.
        config: All settings.
        grids: The heads, with the grid that each reads.
        specs: The features that each head reads.
        folder: Where fits are kept.
        progress: Hears of progress.

    Attributes:
        outcomes: What each task found.
        failed: The heads without a result, with the reason.
    """

    def __init__(
        self,
        plan: Plan,
        config: CompareConfig,
        grids: Mapping[str, Grid],
        specs: Mapping[str, FeatureSpec],
        folder: Path,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.config = config
        self.grids = grids
        self.specs = specs
        self.progress = progress
        self.kept = Kept(folder / "fits", progress)
        self.budgets = Budgets(folder / "budgets.json")
        self.outcomes: dict[Task, Outcome] = {}
        self.failed: dict[str, str] = {}
        self.files: dict[Task, Path] = {}

    @property
    def done(self) -> list[str]:
        """The heads that have a result."""
        return [head for head in self.grids if head not in self.failed]

    def carry_out(self, crew: Crew) -> int:
        """Do what is missing; the number of epochs that every head got.

        Raises:
            UserError: All heads failed, or the budget is too small.
            KeyboardInterrupt: After saying what is kept.
        """
        epochs = self._epochs(crew)
        missing = {(task.head, task.seed, task.fold): task for task in self._missing()}
        requests = [
            {
                **{"op": "fit", "head": task.head, "seed": task.seed, "fold": task.fold},
                **{"epochs": epochs, "file": str(self.files[task])},
            }
            for task in missing.values()
        ]
        if not requests:
            return epochs
        self.progress.start("Comparing", len(requests))
        self._show_board()
        try:
            for request, found in crew.run(requests, lambda each: each["head"] not in self.failed):
                task = missing[request["head"], request["seed"], request["fold"]]
                if "error" in found:
                    self._fail(task.head, found["error"])
                else:
                    self.outcomes[task] = Outcome.load(self.files[task])
                self.progress.advance(note=task.head)
                self._show_board()
        except KeyboardInterrupt:
            self.progress.warn(
                f"interrupted: {len(self.outcomes)} of {len(self.files)} folds are kept in "
                f"{self.kept.folder}; go on with the same command"
            )
            raise
        finally:
            self.progress.finish()
        self._check_some_left()
        return epochs

    def _epochs(self, crew: Crew) -> int:
        """How many epochs every head gets; says how long what is to be done will take."""
        seconds = self.config.budget_seconds()
        key = budget_key(self.plan, self.config, self.grids)
        epochs = self.config.epochs if seconds is None else self.budgets.find(key)
        if epochs is not None:
            self._find_kept(epochs)
        missing = Counter(task.head for task in self._missing())
        if epochs is not None and not missing:
            return epochs
        estimate = self._estimate(crew, missing)
        if epochs is None:
            assert seconds is not None
            epochs = estimate.epochs_within(seconds, self.config.epochs)
            self.budgets.keep(key, epochs)
            self.progress.info(f"Budget of {spoken(seconds)}: {epochs} epochs for every head")
            self._find_kept(epochs)
        announce(epochs, self.config.epochs, estimate, self.progress)
        return epochs

    def _estimate(self, crew: Crew, missing: Mapping[str, int]) -> Estimate:
        """Time a short fit of each head that is to be fitted, with all processes at work."""
        taken: dict[str, float] = {}
        self.progress.start("Timing heads", len(missing))
        try:
            for request, found in crew.run([{"op": "probe", "head": head} for head in missing]):
                self.progress.advance(note=request["head"])
                if "error" in found:
                    self._fail(request["head"], found["error"])
                else:
                    taken[request["head"]] = found["seconds"]
        finally:
            self.progress.finish()
        self._check_some_left()
        candidates = len(self.config.candidates())
        fits = {
            head: count * (candidates + head_class(head).order_aware)
            for head, count in missing.items()
            if head in taken
        }
        return Estimate(taken, fits, crew.jobs)

    def _find_kept(self, epochs: int) -> None:
        """Take over what an earlier call has done."""
        keys = Keys(self.plan, self.config, epochs)
        for task in self.plan.tasks(list(self.grids)):
            key = keys.key(task, self.specs[task.head])
            self.files[task] = self.kept.path(task, key)
            outcome = self.kept.find(task, key)
            if outcome is not None and _has_all(task, outcome):
                self.outcomes[task] = outcome
        if self.outcomes:
            self.progress.info(
                f"{len(self.outcomes)} of {len(self.files)} folds are done already: "
                f"{self.kept.folder}"
            )

    def _missing(self) -> list[Task]:
        """What is still to be done."""
        return [task for task in self.plan.tasks(self.done) if task not in self.outcomes]

    def _fail(self, head: str, reason: str) -> None:
        if head not in self.failed:
            self.failed[head] = reason
            self.progress.warn(f"head '{head}' failed: {reason}")

    def _check_some_left(self) -> None:
        if not self.done:
            head, reason = next(iter(self.failed.items()))
            raise UserError(f"all heads failed; the first, '{head}': {reason}")

    def _show_board(self) -> None:
        """The leaderboard so far: accuracy on the folds that are done."""
        labels, total = self.plan.labels, Counter(task.head for task in self.files)
        rights: dict[str, list[np.ndarray[Any, Any]]] = {head: [] for head in self.grids}
        for task, outcome in self.outcomes.items():
            truth = labels[self.plan.splits[task.seed][task.fold]["test"]]
            rights[task.head].append(outcome.scores[ORDERED].argmax(1) == truth)
        rows = []
        for head, found in rights.items():
            accuracy = float(np.concatenate(found).mean()) if found else -1.0
            done = "failed" if head in self.failed else f"{len(found)} of {total[head]}"
            rows.append((accuracy, head, f"{accuracy:.3f}" if found else "", done))
        rows.sort(key=lambda row: (-row[0], row[1]))
        self.progress.board(("head", "accuracy", "folds"), [row[1:] for row in rows])


def _has_all(task: Task, outcome: Outcome) -> bool:
    """Whether nothing is missing in an outcome that was perhaps kept by an earlier release."""
    return not head_class(task.head).chooses_frames or "frame_budget" in outcome.facts
