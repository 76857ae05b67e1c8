"""A race between candidates on the inner folds of training clips, within a given time.

Candidates are judged fold by fold, and one that is significantly worse than the best so far, on the
same clips, goes no further: racing (Maron and Moore, Hoeffding Races, NeurIPS 1993) with paired
comparisons (Moore and Lee, Efficient Algorithms for Minimizing Cross Validation Error, ICML 1994),
here sign flips of groups. The one with the highest lower end of a 95 % interval (Wilson, 1927) is
chosen: of those that were judged on the same clips the most accurate, and where time has run out
not one that was lucky on few clips. Of equally good ones it is the cheapest. The rule of one
standard error (Breiman et al., 1984) would give accuracy away for a smaller head, and beside an
encoder no head costs much.

A budget is shared out so that a little is known of many candidates before much is known of a few,
as in successive halving (Jamieson and Talwalkar, AISTATS 2016): half of it is for the first fold,
in the order of the candidates, the rest in equal parts for the others, the best first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidfuse.comparison.advice import ALPHA
from vidfuse.comparison.budget import format_duration
from vidfuse.comparison.fit_store import ORDERED, FitResult
from vidfuse.comparison.plan import Candidate, Plan, Task
from vidfuse.comparison.scheduler import request_of
from vidfuse.comparison.workers import WorkerPool
from vidfuse.data.grouping import listing
from vidfuse.errors import UserError
from vidfuse.progress import Reporter
from vidfuse.results import Choice, Interval, Tried
from vidfuse.statistics import paired_sign_flip, wilson_interval
from vidfuse.training.config import DEFAULT_HEAD

FIRST_SHARE = 0.5
"""Share of the budget for the first fold."""
CHOSEN, JUDGED, DROPPED, NO_TIME, FAILED = "chosen", "judged", "dropped", "no time", "failed"


class Race:
    """One choice between candidates.

    Args:
        plan: The clips, and the inner folds of each choice.
        number: Which of the plan's choices this is.
        protocol: How its folds were made.
        costs: The candidates in the order in which they are tried, with the multiply-adds of each
            for a clip.
        files: The file of each task's result.
        epochs: Most epochs of a fit.
        seconds: The budget; None is as long as it takes.
        reporter: Receives progress updates.

    Attributes:
        results: Those of the tasks that are done; what an earlier call has left belongs there
            before the race begins.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        protocol: str,
        costs: Mapping[Candidate, int],
        files: Mapping[Task, Path],
        epochs: int,
        seconds: float | None,
        reporter: Reporter,
    ) -> None:
        self.plan = plan
        self.number = number
        self.protocol = protocol
        self.costs = costs
        self.files = files
        self.epochs = epochs
        self.seconds = seconds
        self.reporter = reporter
        self.results: dict[Task, FitResult] = {}
        self.errors: dict[Candidate, str] = {}
        self.dropped: set[Candidate] = set()
        splits = plan.splits[number]
        self.folds = [fold for fold, rows in enumerate(splits) if rows["test"]]
        self._reached = self.folds  # those on which candidates stand beside each other
        self._labels, self._groups = plan.labels, plan.groups

    def run(self, pool: WorkerPool) -> Choice:
        """Judge the candidates, and choose one.

        Raises:
            UserError: Each of them failed.
        """
        # What was done before counts as if it had been done now.
        began = time.time() - self._fit_seconds(list(self.costs)) / pool.jobs
        racing = list(self.costs)
        for place, fold in enumerate(self.folds):
            if place and self.seconds is not None:
                left = began + self.seconds - time.time()
                racing = [each for each in racing if self._fits_in(each, fold, left)]
            self._reached = self.folds[: place + 1]
            self._judge(racing, fold, self._times(began, place), pool)
            racing = [each for each in racing if Task(each, self.number, fold) in self.results]
            racing.sort(key=self._rank)
            if place + 1 < len(self.folds):
                racing = self._without_worse(racing)
        self._reached = self.folds
        if len(self.errors) == len(self.costs):
            raise UserError(f"all heads failed; the first: {next(iter(self.errors.values()))}")
        return self._choice(self._fit_seconds(list(self.costs)) / pool.jobs)

    def _times(self, began: float, place: int) -> tuple[float | None, float | None]:
        """When the last fit of a round may begin, and when all of them must have ended."""
        if self.seconds is None:
            return None, None
        if place == 0:
            return began + FIRST_SHARE * self.seconds, began + self.seconds
        # Of what is left, since the fits of the round before may have ended late.
        left = began + self.seconds - time.time()
        return time.time() + left / (len(self.folds) - place), began + self.seconds

    def _fits_in(self, candidate: Candidate, fold: int, left: float) -> bool:
        """True if it can be judged on a fold in the seconds left, as fast as on those before."""
        done = Task(candidate, self.number, fold) in self.results
        return done or self._fit_seconds([candidate]) / len(self._reached) <= left

    def _judge(
        self,
        racing: Sequence[Candidate],
        fold: int,
        times: tuple[float | None, float | None],
        pool: WorkerPool,
    ) -> None:
        """Fit candidates for one fold and test them on it, as far as there is time."""
        begin_until, end_until = times
        tasks = {}
        for each in racing:
            task = Task(each, self.number, fold)
            if task not in self.results and each not in self.errors:
                tasks[str(self.files[task])] = task
        requests = [
            request_of(task, self.epochs, Path(file), end_until) for file, task in tasks.items()
        ]
        self.reporter.start(f"Choosing, inner fold {self.folds.index(fold) + 1}", len(requests))
        try:
            for request, found in pool.run(
                requests, lambda _: begin_until is None or time.time() < begin_until
            ):
                task = tasks[request["file"]]
                if "error" in found:
                    self.errors[task.candidate] = found["error"]
                    self.reporter.warn(f"{_name(task.candidate)} failed: {found['error']}")
                elif "late" not in found:
                    self.results[task] = FitResult.load(self.files[task])
                self.reporter.advance(note=task.candidate.head)
                self._show_board()
        finally:
            self.reporter.finish()

    def _show_board(self) -> None:
        """Describe the standing of the candidates."""
        ranked = sorted((each for each in self.costs if self._judged(each)), key=self._rank)
        rows = [
            (_name(each), f"{self._accuracy(each):.3f}", str(len(self._judged(each))))
            for each in ranked
        ]
        self.reporter.board(("candidate", "accuracy", "folds"), rows)

    def _without_worse(self, racing: list[Candidate]) -> list[Candidate]:
        """Those that are not significantly worse than the first, the best."""
        kept = []
        for each in racing:
            rows, right = self._hits(each)
            _, best = self._hits(racing[0])
            groups = [self._groups[row] for row in rows]
            if right.sum() < best.sum() and paired_sign_flip(right, best, groups) < ALPHA:
                self.dropped.add(each)
            else:
                kept.append(each)
        return kept

    def _choice(self, seconds: float) -> Choice:
        """The choice, of those that were judged on any fold and neither failed nor were dropped."""
        judged = [each for each in self.costs if self._judged(each) and each not in self.errors]
        # Whom others were dropped for may have failed later.
        left = [each for each in judged if each not in self.dropped] or judged
        left.sort(key=lambda each: (-self._surely(each), self.costs[each]))
        default = next(each for each in self.costs if each.head == DEFAULT_HEAD)
        if not self._judged(default) and default not in self.errors:
            left = []  # what little is known of others says nothing against it
        elif not left:  # it failed, and there was no time for any other
            default = next(each for each in self.costs if each not in self.errors)
        chosen = left[0] if left else default
        ranked = sorted(self.costs, key=lambda each: (each != chosen, self._rank(each)))
        tried = [self._tried(each, bool(left) and each == chosen) for each in ranked]
        clips = len({row for rows in self.plan.splits[self.number] for row in rows["test"]})
        return Choice(
            **asdict(chosen),
            reason=self._reason(tried, clips) if left else self._no_time(chosen),
            judged=bool(left),
            clips=clips,
            folds=len(self.folds),
            protocol=self.protocol,
            seconds=round(seconds, 1),
            tried=tried,
        )

    def _tried(self, candidate: Candidate, chosen: bool) -> Tried:
        folds = len(self._judged(candidate))
        outcomes = {
            CHOSEN: chosen,
            FAILED: candidate in self.errors,
            DROPPED: candidate in self.dropped,
            JUDGED: folds == len(self.folds),
            NO_TIME: True,
        }
        accuracy, interval = self._measure(candidate)
        return Tried(
            **asdict(candidate),
            outcome=next(outcome for outcome, applies in outcomes.items() if applies),
            folds=folds,
            accuracy=accuracy,
            accuracy_interval=interval,
            seconds=round(self._fit_seconds([candidate]), 1),
            multiply_adds=self.costs[candidate],
            error=self.errors.get(candidate),
        )

    def _measure(self, candidate: Candidate) -> tuple[float | None, Interval]:
        """Accuracy on the folds that it was judged on, with its interval."""
        if not self._judged(candidate):
            return None, None
        _, right = self._hits(candidate)
        accuracy = float(right.mean())
        return accuracy, wilson_interval(accuracy, len(right))  # that which chooses

    def _reason(self, tried: Sequence[Tried], clips: int) -> str:
        """Why the first of them was chosen, in words."""
        best, *others = tried
        on_all = best.folds == len(self.folds)
        rule = f"has the highest lower end of a 95 % interval on {best.folds} of {len(self.folds)}"
        ties = [
            each
            for each in others
            if each.outcome in (JUDGED, NO_TIME)
            and (each.folds, each.accuracy) == (best.folds, best.accuracy)
        ]
        if on_all:
            alone = "the most accurate" if not ties else "one of the most accurate"
            rule = f"is {alone} on all {best.folds}"
        text = f"{_name(best)} {rule} inner folds of {clips} training clips: {best.accuracy:.3f}"
        if best.accuracy_interval:
            text += " ({:.3f} to {:.3f})".format(*best.accuracy_interval)
        if not on_all:
            text += "; there was no time for more"
        judged = [each for each in others if each.outcome == JUDGED]
        if ties:
            costs_less = best.multiply_adds < ties[0].multiply_adds
            text += (
                f"; {listing([_name(each) for each in ties])} "
                f"{'are' if len(ties) > 1 else 'is'} as accurate, and this one "
                f"{'costs less' if costs_less else 'stands first'}"
            )
        elif judged and on_all:
            text += f"; then {_name(judged[0])}, {judged[0].accuracy:.3f}"
        told = {
            JUDGED: "judged on all folds",
            DROPPED: "dropped as significantly worse",
            NO_TIME: "not judged in time",
            FAILED: "failed",
        }
        counts = {each: sum(one.outcome == each for one in others) for each in told}
        more = ", ".join(f"{counts[each]} {told[each]}" for each in told if counts[each])
        if not others:
            return f"{text}."
        rest = "The other" if len(others) == 1 else f"Of the {len(others)} others"
        return f"{text}. {rest}: {more}."

    def _no_time(self, chosen: Candidate) -> str:
        assert self.seconds is not None
        budget = f"a budget of {format_duration(self.seconds)}"
        if chosen.head == DEFAULT_HEAD:
            text = f"{budget} was too small to judge even {_name(chosen)}, which is taken"
        else:
            text = (
                f"`{DEFAULT_HEAD}` failed and {budget} was too small to judge another head; "
                f"{_name(chosen)}, the next, is taken"
            )
        return f"{text}; give more time with --budget"

    def _rank(self, candidate: Candidate) -> tuple[float, int]:
        """Sorts the most accurate first, of equally accurate ones the cheapest."""
        return -self._accuracy(candidate), self.costs[candidate]

    def _surely(self, candidate: Candidate) -> float:
        """The lower end of a 95 % interval of its accuracy."""
        _, right = self._hits(candidate)
        return wilson_interval(float(right.mean()), len(right))[0]

    def _accuracy(self, candidate: Candidate) -> float:
        return float(self._hits(candidate)[1].mean()) if self._judged(candidate) else -1.0

    def _hits(self, candidate: Candidate) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The clips [N] that it was judged on, and whether it was right on each."""
        rows, right = [], []
        for task in self._judged(candidate):
            tested = np.array(self.plan.splits[self.number][task.fold]["test"])
            rows.append(tested)
            right.append(self.results[task].scores[ORDERED].argmax(1) == self._labels[tested])
        return np.concatenate(rows), np.concatenate(right)

    def _judged(self, candidate: Candidate) -> list[Task]:
        tasks = (Task(candidate, self.number, fold) for fold in self._reached)
        return [task for task in tasks if task in self.results]

    def _fit_seconds(self, candidates: Sequence[Candidate]) -> float:
        """Time of the fits of some candidates, one after the other."""
        tasks = [task for each in candidates for task in self._judged(each)]
        return sum(float(self.results[task].metadata["training_seconds"]) for task in tasks)


def _name(candidate: Candidate | Tried) -> str:
    return f"`{candidate.head}` on grid {candidate.grid} of `{candidate.backbone}`"
