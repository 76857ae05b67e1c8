"""From results to the leaderboard, its files and frames."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidfuse.comparison.fit_store import KINDS, FitResult
from vidfuse.comparison.leaderboard import (
    baseline_predictions,
    baseline_rows,
    head_rows,
    predictions,
)
from vidfuse.comparison.plan import Candidate, Plan
from vidfuse.comparison.plots import pareto_front
from vidfuse.comparison.results import COLUMNS, write_csv
from vidfuse.data.clip import Clip
from vidfuse.features.cache import EntryInfo

CLIPS = [Clip(Path(f"{i}.mp4"), "ab"[i % 2], f"g{i // 2}") for i in range(8)]
SPLITS = [
    [
        {"train": [], "val": [], "test": [0, 1, 2, 3]},
        {"train": [], "val": [], "test": [4, 5, 6, 7]},
    ],
    [
        {"train": [], "val": [], "test": [6, 1, 4, 3]},
        {"train": [], "val": [], "test": [2, 5, 0, 7]},
    ],
]
PLAN = Plan(CLIPS, [clip.path.name for clip in CLIPS], ["a", "b"], SPLITS, "protocol")


def on(head, backbone="small"):
    return Candidate(head, backbone, 1)


def results(candidate, right_by_kind, plan=PLAN):
    """Outcomes in which the given clips are right, for each kind and seed."""
    found = {}
    for task in plan.tasks([candidate]):
        rows = plan.splits[task.seed][task.fold]["test"]
        scores = {}
        for kind in KINDS:
            right = np.isin(rows, right_by_kind[kind][task.seed])
            predicted = np.where(right, PLAN.labels[rows], 1 - PLAN.labels[rows])
            scores[kind] = np.eye(2, dtype=np.float32)[predicted]
        found[task] = FitResult(
            scores, {"lr": 0.1 * (task.fold + 1), "dropout": 0.5, "training_seconds": 2.0}
        )
    return found


EVERY = list(range(8))


def same(*right):
    return dict.fromkeys(KINDS, right)


def board(**heads):
    done: dict[Any, Any] = {}
    for head, right in heads.items():
        done |= results(on(head), right)
    found = {on(head): predictions(PLAN, done, on(head)) for head in heads}
    return {row["name"]: row for row in head_rows(PLAN, done, found)}


def test_predictions_are_put_where_their_clips_are():
    right = {kind: ([0, 5], [1, 2, 3]) for kind in KINDS}
    found = predictions(PLAN, results(on("lstm"), right), on("lstm"))
    for kind in KINDS:
        hits = found[kind] == PLAN.labels
        assert [np.flatnonzero(row).tolist() for row in hits] == [[0, 5], [1, 2, 3]]


def test_scores_are_averaged_over_seeds_and_compared_with_mean():
    right = same(EVERY, EVERY) | {"shuffled": ([0], []), "reversed": ([0, 1], [0, 1])}
    rows = board(mean=same([0, 1], [0, 2]), lstm=right)
    assert list(rows) == ["lstm", "mean"], "the best first"
    lstm, mean = rows["lstm"], rows["mean"]
    assert (lstm["accuracy"], mean["accuracy"]) == (1.0, 0.25)
    assert mean["accuracy_by_seed"] == [0.25, 0.25]
    assert lstm["difference"] == 0.75
    low, high = lstm["difference_interval"]
    assert low < 0.75 <= high
    assert (lstm["shuffled"], lstm["tested_shuffled"], lstm["reversed"]) == (1 / 16, 1.0, 0.25)
    # Four groups: all of one sign in 2 of 16 flips.
    assert lstm["p_value_uncorrected"] == lstm["p_value"] == 2 / 16
    assert mean["difference"] is None
    assert mean["p_value"] is None
    assert [each["fits"] for each in lstm["chosen"]] == [2, 2]
    assert lstm["training_seconds"] == 2.0
    assert "4 groups" in lstm["interval_method"]


def test_p_values_are_corrected_for_the_number_of_heads():
    rows = board(mean=same([], []), lstm=same(EVERY, EVERY), gru=same(EVERY, EVERY))
    assert rows["gru"]["p_value_uncorrected"] == 2 / 16
    assert rows["gru"]["p_value"] == 4 / 16


def test_without_mean_nothing_is_compared():
    row = board(lstm=same(EVERY, EVERY))["lstm"]
    assert row["accuracy"] == 1
    assert row["difference"] is row["p_value"] is row["p_value_uncorrected"] is None


def test_accuracy_against_frames_is_averaged_by_clips():
    splits = [[SPLITS[0][0], {"train": [], "val": [], "test": [4]}]]
    plan = replace(PLAN, splits=splits)
    done = results(on("policy"), same([0, 1], [0, 2]), plan)
    for task, accuracy in zip(done, (0.5, 1.0), strict=True):
        point = dict.fromkeys(("policy", "uniform", "random", "early_exit"), accuracy)
        done[task].metadata["frame_budget"] = {
            "own": {"frames": 1.0 + accuracy, **point},
            "curve": [{"frames": 1.0, **point}],
        }
    (row,) = head_rows(plan, done, {on("policy"): predictions(plan, done, on("policy"))})
    assert row["frame_budget"]["own"]["frames"] == pytest.approx((4 * 1.5 + 1 * 2.0) / 5)
    assert row["frame_budget"]["curve"][0]["uniform"] == pytest.approx((4 * 0.5 + 1 * 1.0) / 5)
    assert board(mean=same([0], [0]))["mean"]["frame_budget"] is None


def test_baselines_see_the_same_folds():
    sizes = [10, 20] * 4  # which give the class away
    infos = [EntryInfo(0, 1, 5, size, 9, "pyav", "fp32", "x", []) for size in sizes]
    found = baseline_predictions(PLAN, infos)
    assert found["geometry"].tolist() == [[0, 1] * 4] * 2
    rows = baseline_rows(PLAN, found)
    assert rows["geometry"]["accuracy"] == 1
    # In seed 1 both folds leave as many of one class as of the other.
    assert rows["majority"]["accuracy_by_seed"][0] == 0.5
    assert set(rows["majority"]) == {
        *("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "accuracy_by_seed")
    }


def test_the_table_as_csv():
    rows = list(board(mean=same([0], [0]), lstm=same(EVERY, EVERY)).values())
    summary = {"heads": rows, "baselines": {"majority": {"accuracy": 0.5}}}
    text = io.StringIO()
    write_csv(text, summary)
    lines = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert tuple(lines[0]) == COLUMNS
    assert [(line["name"], line["kind"]) for line in lines] == [
        *(("lstm", "head"), ("mean", "head"), ("majority", "baseline"))
    ]
    assert float(lines[0]["accuracy"]) == 1
    assert float(lines[0]["difference_low"]) <= float(lines[0]["difference"])
    assert lines[1]["p_value"] == lines[2]["shuffled"] == ""


@pytest.mark.parametrize("order", [1, -1])
def test_the_front_holds_whom_nobody_beats_on_both(order):
    rows = [
        {"name": "cheap", "multiply_adds": 1, "accuracy": 0.3},
        {"name": "as cheap", "multiply_adds": 1, "accuracy": 0.2},
        {"name": "good", "multiply_adds": 5, "accuracy": 0.6},
        {"name": "dear", "multiply_adds": 9, "accuracy": 0.6},
        {"name": "best", "multiply_adds": 12, "accuracy": 0.9},
    ]
    assert [row["name"] for row in pareto_front(rows[::order])] == ["cheap", "good", "best"]
