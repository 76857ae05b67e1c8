"""A race between made-up candidates: who goes on, who is chosen, and what a budget allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import Heard

from vidfuse.comparison import race as race_module
from vidfuse.comparison.fit_store import FitResult
from vidfuse.comparison.plan import Candidate, Plan, Task
from vidfuse.comparison.race import Race
from vidfuse.comparison.workers import WorkerPool
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.statistics import wilson_interval

CLIPS = [Clip(Path(f"{i}.mp4"), "ab"[i % 2], f"g{i // 2}") for i in range(48)]
SPLITS = [
    [{"train": [], "val": [], "test": list(range(12 * fold, 12 * fold + 12))} for fold in range(4)]
]
PLAN = Plan(CLIPS, [], ["a", "b"], SPLITS, "protocol")
LSTM, MEAN, GRU, MAX = (Candidate(head, "net", 1) for head in ("lstm", "mean", "gru", "max"))
Rights = dict[Candidate, int]


class Clock:
    """Tells a time that goes on with the fits."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Pool(WorkerPool):
    """Fits that take ten seconds unless told otherwise, and are right on so many clips of a fold.

    A fit of a candidate that is right on fewer than 0 of them fails.
    """

    def __init__(self, rights: Rights, clock: Clock) -> None:
        super().__init__(Path("none"), jobs=1)
        self.rights = rights
        self.clock = clock
        self.done: list[tuple[str, int]] = []
        self.taken: dict[Candidate, float] = {}
        self.failing: set[tuple[str, int]] = set()

    def run(
        self, requests: Iterable[dict[str, Any]], wanted: Callable[[Any], bool] = lambda _: True
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for request in requests:
            if not wanted(request):
                continue
            candidate = Candidate(**request["candidate"])
            self.done.append((candidate.head, request["fold"]))
            seconds = self.taken.get(candidate, 10.0)
            self.clock.now += seconds
            if self.rights[candidate] < 0 or self.done[-1] in self.failing:
                yield request, {"error": "it is broken"}
                continue
            if request["until"] is not None and self.clock.now > request["until"]:
                yield request, {"late": True}
                continue
            rows = SPLITS[0][request["fold"]]["test"]
            right = np.arange(len(rows)) < self.rights[candidate]
            predicted = np.where(right, PLAN.labels[rows], 1 - PLAN.labels[rows])
            scores = {"ordered": np.eye(2, dtype=np.float32)[predicted]}
            FitResult(scores, {"training_seconds": seconds}).save(Path(request["file"]))
            yield request, {}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs a race; gives the choice, the fits that were made, and what was said."""

    def run(rights, costs=None, seconds=None, results=None, taken=None, failing=()):
        clock = Clock()
        monkeypatch.setattr(race_module, "time", clock)
        heard = Heard()
        costs = costs or dict.fromkeys(rights, 10)
        files = {
            task: tmp_path / f"{task.candidate.head}-{task.fold}.npz"
            for task in PLAN.tasks(list(costs))
        }
        race = Race(PLAN, 0, "4 folds", costs, files, 5, seconds, heard)
        race.results |= results or {}
        pool = Pool(rights, clock)
        pool.taken |= taken or {}
        pool.failing |= set(failing)
        return race.run(pool), pool.done, heard

    return run


def outcomes(choice):
    return {each.head: each.outcome for each in choice.tried}


def test_the_most_accurate_is_chosen_and_all_are_told(start):
    choice, done, _ = start({MEAN: 8, LSTM: 10, GRU: 9})
    assert (choice.head, choice.backbone, choice.grid, choice.judged) == ("lstm", "net", 1, True)
    assert outcomes(choice) == {"lstm": "chosen", "gru": "judged", "mean": "judged"}
    assert [each.head for each in choice.tried] == ["lstm", "gru", "mean"]
    assert len(done) == 12
    best = choice.tried[0]
    assert best.accuracy == pytest.approx(40 / 48)
    assert best.accuracy_interval is not None
    low, high = best.accuracy_interval
    assert low < 40 / 48 < high
    assert (choice.clips, choice.folds, best.seconds) == (48, 4, 40)
    assert "`lstm` on grid 1 of `net` is the most accurate on all 4 inner folds" in choice.reason
    assert "then `gru` on grid 1 of `net`, 0.750" in choice.reason
    assert "Of the 2 others: 2 judged on all folds." in choice.reason
    json.dumps(choice.to_dict())


def test_of_equally_accurate_ones_the_cheapest(start):
    choice, _, _ = start({MEAN: 9, LSTM: 9, GRU: 9}, costs={MEAN: 30, LSTM: 20, GRU: 25})
    assert choice.head == "lstm"
    assert "is one of the most accurate on all 4 inner folds" in choice.reason
    told = "; `gru` on grid 1 of `net`, `mean` on grid 1 of `net` are as accurate, and this one "
    assert f"{told}costs less. Of the 2 others: 2 judged" in choice.reason
    choice, _, _ = start({MEAN: 9, LSTM: 9})
    told = (
        "`lstm` on grid 1 of `net` is as accurate, and this one stands first. The other: 1 judged"
    )
    assert told in choice.reason


def test_all_intervals_are_of_one_kind_and_choose(start):
    choice, _, _ = start({MEAN: 8, LSTM: 12, GRU: 0})
    for each in choice.tried:
        clips = 12 * each.folds
        assert each.accuracy_interval == pytest.approx(wilson_interval(each.accuracy, clips))


def test_who_is_significantly_worse_goes_no_further(start):
    # Six groups are worse by both clips: in a sign-flip test p = 2 / 2^6 after the first fold.
    choice, done, _ = start({MEAN: 0, LSTM: 12, GRU: 11})
    assert [fold for head, fold in done if head == "mean"] == [0]
    assert outcomes(choice) == {"lstm": "chosen", "gru": "judged", "mean": "dropped"}
    assert "1 dropped as significantly worse" in choice.reason
    # In one fold two groups of six differ, p = 2 / 2^2; in three folds six, p = 2 / 2^6.
    choice, done, _ = start({MEAN: 8, LSTM: 12})
    assert [fold for head, fold in done if head == "mean"] == [0, 1, 2]


def test_a_budget_tries_many_on_one_fold_and_then_the_best_on_the_others(start):
    # Half of 120 s is enough to begin six fits, and then 20 s for two of each further fold.
    heads = ["mean", "max", "rnn", "gru", "tcn", "lstm", "cbam", "gat"]
    rights = {Candidate(h, "net", 1): 5 + n % 5 for n, h in enumerate(heads)}
    choice, done, _ = start(rights, seconds=120)
    assert [head for head, fold in done if fold == 0] == heads[:6]
    assert [head for head, fold in done if fold == 1] == ["tcn", "gru"], "the best first"
    assert len(done) == 12
    assert choice.head == "tcn"
    assert outcomes(choice) == {
        **{"tcn": "chosen", "gru": "judged"},
        **dict.fromkeys(("mean", "max", "rnn", "lstm", "cbam", "gat"), "no time"),
    }
    assert [each.folds for each in choice.tried if each.head == "cbam"] == [0]
    assert "6 not judged in time" in choice.reason


def test_who_would_not_be_done_in_time_is_not_begun(start):
    # Of 90 s, 30 are left after the first fold, less than lstm needs once more.
    choice, done, _ = start({MEAN: 3, GRU: 6, LSTM: 9}, seconds=90, taken={LSTM: 40})
    assert [head for head, fold in done] == ["mean", "gru", "lstm", "gru", "gru", "gru"]
    assert outcomes(choice) == {"lstm": "chosen", "gru": "judged", "mean": "no time"}


def test_where_time_runs_out_the_lower_end_of_the_interval_chooses(start):
    # lstm: 11 of 12 is at least .65; mean: 4 of 12 on four folds at least .22.
    choice, done, _ = start({MEAN: 4, LSTM: 11}, seconds=130, taken={LSTM: 90})
    assert done.count(("lstm", 0)) == len([head for head, _ in done if head == "lstm"]) == 1
    assert done.count(("mean", 3)) == 1
    assert (choice.head, choice.judged) == ("lstm", True)
    assert outcomes(choice) == {"lstm": "chosen", "mean": "judged"}
    assert "on 1 of 4 inner folds of 48 training clips: " in choice.reason
    assert "; there was no time for more. The other: 1 judged" in choice.reason
    # gru: 9 of 12 on four folds is at least .61; lstm: 10 of 12 on one at least .55.
    choice, _, _ = start({GRU: 9, LSTM: 10}, seconds=130, taken={LSTM: 90})
    assert choice.head == "gru"


def test_a_round_that_ends_late_leaves_time_for_the_others(start, monkeypatch):
    # The only fit that begins in the first half of 90 s ends after 60 of them.
    slow = Pool.run

    def delayed(self, requests, wanted):
        for pair in slow(self, requests, wanted):
            if pair[0]["fold"] == 0:
                self.clock.now += 50
            yield pair

    monkeypatch.setattr(Pool, "run", delayed)
    choice, done, _ = start({LSTM: 9, MEAN: 5, GRU: 9}, seconds=90)
    assert done == [("lstm", 0), ("lstm", 1), ("lstm", 2), ("lstm", 3)]
    assert (choice.head, choice.judged) == ("lstm", True)


def test_a_budget_that_is_too_small_for_any_takes_the_default(start):
    choice, done, _ = start({MEAN: 9, LSTM: 5}, seconds=5)
    assert done == [("mean", 0)]
    assert (choice.head, choice.judged) == ("lstm", False)
    assert set(outcomes(choice).values()) == {"no time"}
    told = "a budget of 5 s was too small to judge even `lstm` on grid 1 of `net`, which is taken"
    assert choice.reason.startswith(told)
    assert all(each.accuracy is None for each in choice.tried)
    choice, done, _ = start({MEAN: 9, LSTM: 5}, seconds=15)
    assert done == [("mean", 0)], "another would take longer"
    assert (choice.head, choice.judged) == ("lstm", False), "nothing says that mean is better"
    choice, _, _ = start({LSTM: 5, MEAN: 9}, seconds=15)
    assert (choice.head, choice.judged) == ("lstm", True)


def test_who_fails_is_named_and_the_others_race(start):
    choice, done, heard = start({MEAN: -1, LSTM: 5})
    assert choice.head == "lstm"
    assert [head for head, _ in done].count("mean") == 1
    (failed,) = (each for each in choice.tried if each.head == "mean")
    assert (failed.outcome, failed.error, failed.accuracy) == ("failed", "it is broken", None)
    assert heard.warnings == ["`mean` on grid 1 of `net` failed: it is broken"]
    choice, done, _ = start({MEAN: 0, LSTM: 12}, failing={("lstm", 1)})
    assert outcomes(choice) == {"mean": "chosen", "lstm": "failed"}, "though it was dropped"
    choice, _, _ = start({LSTM: -1, MEAN: 9}, seconds=5)
    assert (choice.head, choice.judged) == ("mean", False), "not who failed"
    assert "`lstm` failed and a budget of 5 s was too small" in choice.reason
    with pytest.raises(UserError, match="all heads failed; the first: it is broken"):
        start({MEAN: -1, LSTM: -1})


def test_what_was_done_before_is_not_done_again_and_counts_as_time(start):
    def result(right):
        predicted = np.where(np.arange(12) < right, PLAN.labels[:12], 1 - PLAN.labels[:12])
        return FitResult(
            {"ordered": np.eye(2, dtype=np.float32)[predicted]}, {"training_seconds": 10.0}
        )

    results = {Task(LSTM, 0, fold): result(9) for fold in range(4)}
    choice, done, _ = start({LSTM: 9, MEAN: 10}, results=results)
    assert [head for head, _ in done] == ["mean"] * 4
    assert choice.head == "mean"
    choice, done, _ = start({LSTM: 9, MEAN: 10}, results=results, seconds=70)
    assert done == [], "40 of 70 s have gone, more than half"
    assert (choice.head, choice.judged) == ("lstm", True)
    choice, done, _ = start({LSTM: 9, MEAN: 8}, results=results)
    assert done == [("mean", fold) for fold in range(4)]
    assert choice.head == "lstm"
