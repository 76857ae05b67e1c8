"""All fits of a comparison: those that are kept are taken over, the others are carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.comparison.budget import Budgets, Estimate, announce, format_duration
from vidfuse.comparison.config import CompareConfig
from vidfuse.comparison.fit_store import ORDERED, FitResult, FitStore
from vidfuse.comparison.plan import (
    Candidate,
    FitSettings,
    Plan,
    Task,
    budget_key,
    fit_digests,
)
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
        specs: The candidates, with the features that each reads.
        folder: Folder of the comparison; fits are kept in ``fits`` there.
        reporter: Receives progress updates and collects the time of each stage.

    Attributes:
        results: The result of each task that is done.
        failed: The candidates without a result, with the reason.
    """

    def __init__(
        self,
        plan: Plan,
        config: CompareConfig,
        specs: Mapping[Candidate, FeatureSpec],
        folder: Path,
        reporter: Reporter,
    ) -> None:
        self.plan = plan
        self.config = config
        self.specs = specs
        self.reporter = reporter
        self.store = FitStore(folder / "fits", reporter)
        self.budgets = Budgets(folder / "budgets.json")
        self.results: dict[Task, FitResult] = {}
        self.failed: dict[Candidate, str] = {}
        self.files: dict[Task, Path] = {}

    @property
    def done(self) -> list[Candidate]:
        """The candidates that have a result."""
        return [each for each in self.specs if each not in self.failed]

    def run(self, pool: WorkerPool) -> int:
        """Run the missing fits; returns the number of epochs that every candidate got.

        Raises:
            UserError: All candidates failed, or the budget is too small.
            KeyboardInterrupt: After saying how many fits are done and where.
        """
        epochs = self._epochs(pool)
        missing = {str(self.files[task]): task for task in self._missing()}
        if not missing:
            return epochs
        requests = [request_of(task, epochs, self.files[task]) for task in missing.values()]
        self.reporter.start("Comparing", len(requests))
        self._show_board()
        try:
            for request, found in pool.run(
                requests, lambda each: missing[each["file"]].candidate not in self.failed
            ):
                task = missing[request["file"]]
                if "error" in found:
                    self._fail(task.candidate, found["error"])
                else:
                    self.results[task] = FitResult.load(self.files[task])
                self.reporter.advance(note=self._label(task.candidate))
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
        """The number of epochs that all candidates get; announces the time of the missing fits."""
        seconds = self.config.budget_seconds()
        grids = {each.head: each.grid for each in self.specs}
        key = budget_key(self.plan, self.config, grids)
        epochs = self.config.epochs if seconds is None else self.budgets.find(key)
        if epochs is not None:
            self._take_finished(epochs)
        missing = Counter(task.candidate for task in self._missing())
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

    def _estimate(self, pool: WorkerPool, missing: Mapping[Candidate, int]) -> Estimate:
        """Time a short fit of each candidate that is to be fitted, with all processes at work."""
        taken: dict[Candidate, float] = {}
        self.reporter.start("Timing heads", len(missing))
        requests = [{"op": "probe", "candidate": asdict(each)} for each in missing]
        try:
            for request, found in pool.run(requests):
                candidate = Candidate(**request["candidate"])
                self.reporter.advance(note=self._label(candidate))
                if "error" in found:
                    self._fail(candidate, found["error"])
                else:
                    taken[candidate] = found["seconds"]
        finally:
            self.reporter.finish()
        self._check_some_left()
        searched, refits = len(self.config.hyperparameters()), int(self.config.refit)
        shuffled = (1 + refits) * self.config.orders
        fits = {
            each: count * (searched + refits + shuffled * head_class(each.head).order_aware)
            for each, count in missing.items()
            if each in taken
        }
        return Estimate(taken, fits, pool.jobs)

    def _take_finished(self, epochs: int) -> None:
        """Read the results that an earlier call has left."""
        settings = {
            each: settings_of(self.config, each, spec, epochs) for each, spec in self.specs.items()
        }
        for task, key in fit_digests(self.plan, settings).items():
            self.files[task] = self.store.path(task, key)
            result = self.store.find(task, key)
            if result is not None:
                self.results[task] = result
        if self.results:
            self.reporter.info(
                f"{len(self.results)} of {len(self.files)} folds are done already: "
                f"{self.store.folder}"
            )

    def _missing(self) -> list[Task]:
        """Tasks that are still to be done."""
        return [task for task in self.plan.tasks(self.done) if task not in self.results]

    def _fail(self, candidate: Candidate, reason: str) -> None:
        if candidate not in self.failed:
            self.failed[candidate] = reason
            self.reporter.warn(f"head '{self._label(candidate)}' failed: {reason}")

    def _check_some_left(self) -> None:
        if not self.done:
            candidate, reason = next(iter(self.failed.items()))
            raise UserError(f"all heads failed; the first, '{self._label(candidate)}': {reason}")

    def failed_heads(self) -> list[dict[str, str]]:
        """The candidates without a result, ready for JSON."""
        return [
            {"name": self._label(each), "error": reason} for each, reason in self.failed.items()
        ]

    def _label(self, candidate: Candidate) -> str:
        """Its name, with its encoder where there are several."""
        several = self.config.backbones is not None
        return f"{candidate.head} on {candidate.backbone}" if several else candidate.head

    def _show_board(self) -> None:
        """The leaderboard so far: accuracy on the folds that are done."""
        labels, total = self.plan.labels, Counter(task.candidate for task in self.files)
        rights: dict[Candidate, list[np.ndarray[Any, Any]]] = {each: [] for each in self.specs}
        for task, result in self.results.items():
            truth = labels[self.plan.splits[task.seed][task.fold]["test"]]
            rights[task.candidate].append(result.scores[ORDERED].argmax(1) == truth)
        rows = []
        for each, found in rights.items():
            accuracy = float(np.concatenate(found).mean()) if found else -1.0
            done = "failed" if each in self.failed else f"{len(found)} of {total[each]}"
            rows.append((accuracy, self._label(each), f"{accuracy:.3f}" if found else "", done))
        rows.sort(key=lambda row: (-row[0], row[1]))
        self.reporter.board(("head", "accuracy", "folds"), [row[1:] for row in rows])


def settings_of(
    config: CompareConfig, candidate: Candidate, spec: FeatureSpec, epochs: int
) -> FitSettings:
    """All that decides the fits of a candidate: the same whether it is compared alone or not."""
    own = replace(config, backbone=candidate.backbone, backbones=None)
    return FitSettings(spec, own.training(candidate.head, epochs=epochs), own.digested())


def request_of(task: Task, epochs: int, file: Path, until: float | None = None) -> dict[str, Any]:
    """The request to a process for the result of a task.

    Args:
        task: What to do.
        epochs: Most epochs of a fit.
        file: Where the result goes.
        until: When to give up, as of ``time.time``; None never.
    """
    return {
        **{"op": "fit", "candidate": asdict(task.candidate), "seed": task.seed, "fold": task.fold},
        **{"epochs": epochs, "until": until, "file": str(file)},
    }
