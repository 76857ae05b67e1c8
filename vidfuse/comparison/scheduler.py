"""All fits of a comparison: those that are kept are taken over, the others are carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.backbones import Grid
from vidfuse.comparison.budget import Budgets, Estimate, announce, format_duration
from vidfuse.comparison.config import CompareConfig
from vidfuse.comparison.fit_store import ORDERED, FitResult, FitStore
from vidfuse.comparison.plan import Plan, Task, budget_key, fit_digests
from vidfuse.comparison.workers import WorkerPool
from vidfuse.errors import UserError
from vidfuse.features.spec import FeatureSpec
from vidfuse.heads import head_class
from vidfuse.progress import Reporter


class FitScheduler:
    """Runs all fits of a comparison that are not done yet, and holds their results.

    Args:
        plan: The clips and folds.
        config: All settings.
        grids: The heads, with the grid that each reads.
        specs: The features that each head reads.
        folder: Folder of the comparison; fits are kept in ``fits`` there.
        reporter: Receives progress updates and collects the time of each stage.

    Attributes:
        results: The result of each task that is done.
        failed: The heads without a result, with the reason.
    """

    def __init__(
        self,
        plan: Plan,
        config: CompareConfig,
        grids: Mapping[str, Grid],
        specs: Mapping[str, FeatureSpec],
        folder: Path,
        reporter: Reporter,
    ) -> None:
        self.plan = plan
        self.config = config
        self.grids = grids
        self.specs = specs
        self.reporter = reporter
        self.store = FitStore(folder / "fits", reporter)
        self.budgets = Budgets(folder / "budgets.json")
        self.results: dict[Task, FitResult] = {}
        self.failed: dict[str, str] = {}
        self.files: dict[Task, Path] = {}

    @property
    def done(self) -> list[str]:
        """The heads that have a result."""
        return [head for head in self.grids if head not in self.failed]

    def run(self, pool: WorkerPool) -> int:
        """Run the missing fits; returns the number of epochs that every head got.

        Raises:
            UserError: All heads failed, or the budget is too small.
            KeyboardInterrupt: After saying how many fits are done and where.
        """
        epochs = self._epochs(pool)
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
        self.reporter.start("Comparing", len(requests))
        self._show_board()
        try:
            for request, found in pool.run(requests, lambda each: each["head"] not in self.failed):
                task = missing[request["head"], request["seed"], request["fold"]]
                if "error" in found:
                    self._fail(task.head, found["error"])
                else:
                    self.results[task] = FitResult.load(self.files[task])
                self.reporter.advance(note=task.head)
                self._show_board()
        except KeyboardInterrupt:
            self.reporter.warn(
                f"interrupted: {len(self.results)} of {len(self.files)} folds are kept in "
                f"{self.store.folder}; go on with the same command"
            )
            raise
        finally:
            self.reporter.finish()
        self._check_some_left()
        return epochs

    def _epochs(self, pool: WorkerPool) -> int:
        """The number of epochs that every head gets; announces the time of the missing fits."""
        seconds = self.config.budget_seconds()
        key = budget_key(self.plan, self.config, self.grids)
        epochs = self.config.epochs if seconds is None else self.budgets.find(key)
        if epochs is not None:
            self._take_finished(epochs)
        missing = Counter(task.head for task in self._missing())
        if epochs is not None and not missing:
            return epochs
        estimate = self._estimate(pool, missing)
        if epochs is None:
            assert seconds is not None
            epochs = estimate.epochs_within(seconds, self.config.epochs)
            self.budgets.keep(key, epochs)
            self.reporter.info(
                f"Budget of {format_duration(seconds)}: {epochs} epochs for every head"
            )
            self._take_finished(epochs)
        announce(epochs, self.config.epochs, estimate, self.reporter)
        return epochs

    def _estimate(self, pool: WorkerPool, missing: Mapping[str, int]) -> Estimate:
        """Time a short fit of each head that is to be fitted, with all processes at work."""
        taken: dict[str, float] = {}
        self.reporter.start("Timing heads", len(missing))
        try:
            for request, found in pool.run([{"op": "probe", "head": head} for head in missing]):
                self.reporter.advance(note=request["head"])
                if "error" in found:
                    self._fail(request["head"], found["error"])
                else:
                    taken[request["head"]] = found["seconds"]
        finally:
            self.reporter.finish()
        self._check_some_left()
        candidates = len(self.config.candidates())
        fits = {
            head: count * (candidates + head_class(head).order_aware)
            for head, count in missing.items()
            if head in taken
        }
        return Estimate(taken, fits, pool.jobs)

    def _take_finished(self, epochs: int) -> None:
        """Read the results that an earlier call has left."""
        for task, key in fit_digests(self.plan, self.config, epochs, self.specs).items():
            self.files[task] = self.store.path(task, key)
            result = self.store.find(task, key)
            if result is not None and _is_complete(task, result):
                self.results[task] = result
        if self.results:
            self.reporter.info(
                f"{len(self.results)} of {len(self.files)} folds are done already: "
                f"{self.store.folder}"
            )

    def _missing(self) -> list[Task]:
        """Tasks that are still to be done."""
        return [task for task in self.plan.tasks(self.done) if task not in self.results]

    def _fail(self, head: str, reason: str) -> None:
        if head not in self.failed:
            self.failed[head] = reason
            self.reporter.warn(f"head '{head}' failed: {reason}")

    def _check_some_left(self) -> None:
        if not self.done:
            head, reason = next(iter(self.failed.items()))
            raise UserError(f"all heads failed; the first, '{head}': {reason}")

    def _show_board(self) -> None:
        """The leaderboard so far: accuracy on the folds that are done."""
        labels, total = self.plan.labels, Counter(task.head for task in self.files)
        rights: dict[str, list[np.ndarray[Any, Any]]] = {head: [] for head in self.grids}
        for task, result in self.results.items():
            truth = labels[self.plan.splits[task.seed][task.fold]["test"]]
            rights[task.head].append(result.scores[ORDERED].argmax(1) == truth)
        rows = []
        for head, found in rights.items():
            accuracy = float(np.concatenate(found).mean()) if found else -1.0
            done = "failed" if head in self.failed else f"{len(found)} of {total[head]}"
            rows.append((accuracy, head, f"{accuracy:.3f}" if found else "", done))
        rows.sort(key=lambda row: (-row[0], row[1]))
        self.reporter.board(("head", "accuracy", "folds"), [row[1:] for row in rows])


def _is_complete(task: Task, result: FitResult) -> bool:
    """False for a result of an earlier release that lacks a measurement of today."""
    return not head_class(task.head).selects_frames or "frame_budget" in result.metadata
