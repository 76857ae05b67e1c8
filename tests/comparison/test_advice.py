"""Which head is recommended, on made-up results."""

from __future__ import annotations

import numpy as np
import pytest

from vidfuse.comparison.advice import advise, smallest_p_value
from vidfuse.statistics import holm, paired_sign_flip

GROUPS = [f"g{i // 10}" for i in range(160)]


def shares(accuracy, seed):
    """Clips that are right, about as many in each of 16 groups."""
    generator = np.random.default_rng(seed)
    return (generator.permutation(160) < accuracy * 160).astype(float)


def advice(accuracies, costs=None, baselines=(0.2, 0.2), groups=GROUPS, shuffled=0.3):
    heads = {name: shares(each, seed) for seed, (name, each) in enumerate(accuracies.items())}
    others = [name for name in heads if name != "mean"]
    p_values = [paired_sign_flip(heads[name], heads["mean"], groups) for name in others]
    corrected = dict(zip(others, zip(holm(p_values), p_values, strict=True), strict=True))
    rows = [
        {
            "name": name,
            "accuracy": each.mean(),
            "accuracy_interval": [each.mean() - 0.1, each.mean() + 0.1],
            "difference": None if name == "mean" else (each - heads["mean"]).mean(),
            "p_value": corrected.get(name, (None, None))[0],
            "p_value_uncorrected": corrected.get(name, (None, None))[1],
            "multiply_adds": (costs or {}).get(name, 1000),
            "parameters": 10,
            "order_aware": name != "mean",
            "shuffled": shuffled,
            "shuffled_p_value": 0.001,
        }
        for name, each in heads.items()
    ]
    rows.sort(key=lambda row: -row["accuracy"])
    blind = dict(
        zip(
            ("majority", "geometry"),
            (shares(b, 90 + i) for i, b in enumerate(baselines)),
            strict=True,
        )
    )
    return advise(rows, heads, blind, groups)


def test_of_heads_as_good_the_cheapest():
    given = advice(
        {"mean": 0.4, "lstm": 0.81, "gru": 0.8, "rnn": 0.6},
        costs={"lstm": 900, "gru": 700, "rnn": 100},
    )
    assert given.head == "gru", "the best is not told from it, and rnn is"
    assert "fewest multiply-adds" in given.text
    assert "The order of frames matters here" in given.text


def test_the_best_where_nothing_cheaper_is_as_good():
    given = advice({"mean": 0.4, "lstm": 0.9, "rnn": 0.6}, costs={"lstm": 900, "rnn": 100})
    assert given.head == "lstm"
    assert "most accurate head" in given.text


def test_data_that_separate_nothing():
    given = advice({"mean": 0.7, "lstm": 0.71, "gru": 0.69})
    assert given.head == "mean"
    assert "do not separate" in given.text
    assert "add groups" not in given.text


def test_worse_than_mean_is_not_better():
    given = advice({"mean": 0.9, "lstm": 0.5})
    assert given.head == "mean"


@pytest.mark.parametrize("baselines", [(0.4, 0.1), (0.1, 0.9)])
def test_nothing_beats_what_needs_no_frame(baselines):
    given = advice({"mean": 0.35, "lstm": 0.42}, baselines=baselines)
    assert given.head is None
    name = "most frequent class" if baselines[0] > 0.3 else "clip geometry"
    assert name in given.text
    assert ("(p =" in given.text) == (baselines[0] > 0.3)


def test_too_few_groups_for_any_answer():
    few = [f"g{i // 40}" for i in range(160)]
    given = advice({"mean": 0.5, "lstm": 0.9}, groups=few)
    assert given.head is None
    assert "With 4 groups and 1 test no result could be significant" in given.text
    six = [f"g{i // 27}" for i in range(160)]
    given = advice({"mean": 0.5, "lstm": 0.95, "gru": 0.9, "rnn": 0.6}, groups=six)
    assert given.head == "mean"
    assert (
        "3 tests no result could be significant (the smallest corrected p is 0.094)" in given.text
    )


def test_clips_without_groups_count_by_themselves():
    given = advice({"mean": 0.5, "lstm": 0.9}, groups=[None] * 80 + ["g"] * 80)
    assert given.head == "lstm"
    rows = [{"name": "mean", "accuracy": 1.0, "p_value": None}]
    right, wrong = np.ones(4), np.zeros(4)
    text = advise(rows, {"mean": right}, {"majority": wrong}, [None] * 4).text
    assert "With 4 clips and 1 test no result could be significant" in text
    assert text.endswith("add clips, or compare fewer heads.")


def test_the_best_may_not_be_shown_to_be_better_than_mean():
    # It is better than lstm on every clip, and yet its difference to mean is not significant.
    heads = {"gru": np.ones(160), "lstm": np.zeros(160), "mean": np.zeros(160)}
    p_values = {"gru": 0.2, "lstm": 0.01, "mean": None}
    rows = [
        {
            **{"name": name, "accuracy": accuracy, "accuracy_interval": None},
            **{"difference": accuracy - 0.5, "p_value": p_values[name]},
            **{"multiply_adds": 10, "parameters": 10, "order_aware": False},
        }
        for name, accuracy in (("gru", 0.9), ("lstm", 0.8), ("mean", 0.5))
    ]
    given = advise(rows, heads, {"majority": np.zeros(160)}, GROUPS)
    assert given.head == "lstm"
    assert "`gru` has 0.900, but is not shown to be better than `mean`" in given.text
    assert "not distinguishable" not in given.text


def test_the_smallest_p_value_is_what_the_test_can_say():
    for count in (1, 3, 5, 9):
        groups = [str(i) for i in range(count)]
        assert smallest_p_value(groups) == pytest.approx(
            paired_sign_flip(np.ones(count), np.zeros(count), groups)
        )
    assert smallest_p_value([None, None, "a", "a"]) == 0.25
