import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, top_k_accuracy_score

from vidfuse import statistics
from vidfuse.metrics import repeated_summary, summary
from vidfuse.statistics import holm, mean_interval, paired_sign_flip


def one_hot(predicted, classes):
    return np.eye(classes)[predicted]


def random_case(n, classes, seed=0, right=0.5):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    scores = generator.normal(size=(n, classes))
    scores[np.arange(n), labels] += 2 * right
    return labels, scores


def test_a_case_worked_by_hand():
    #        predicted  a  b  c
    # true a            2  1  0
    # true b            0  1  0
    # class c: never true, never predicted
    labels, predicted = [0, 0, 0, 1], [0, 0, 1, 1]
    result = summary(labels, one_hot(predicted, 3), ["a", "b", "c"])
    assert result["accuracy"] == 0.75
    assert result["top5_accuracy"] is None
    assert result["confusion_matrix"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert result["macro_precision"] == pytest.approx((1 + 1 / 2) / 2)
    assert result["macro_recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert result["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert result["per_class"][0] == {
        "label": "a",
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }
    assert result["per_class"][2] == {
        "label": "c",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }


@pytest.mark.parametrize("missing", [None, 2])
def test_agrees_with_sklearn(missing):
    labels, scores = random_case(60, 8)
    keep = labels != missing
    labels, scores = labels[keep], scores[keep]
    result = summary(labels, scores, list("abcdefgh"))
    present = np.unique(labels)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, scores.argmax(1), labels=present, average="macro", zero_division=0
    )
    assert result["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert result["macro_precision"] == pytest.approx(precision)
    assert result["macro_recall"] == pytest.approx(recall)
    assert result["macro_f1"] == pytest.approx(f1)
    top5 = top_k_accuracy_score(labels, scores, k=5, labels=range(8))
    assert result["top5_accuracy"] == pytest.approx(top5)
    assert result["accuracy"] < top5 < 1


def test_ties_go_to_the_first_class_in_both_accuracies():
    result = summary([0, 4, 5], np.zeros((3, 6)), list("abcdef"))
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert result["top5_accuracy"] == pytest.approx(2 / 3)


def test_is_json_and_deterministic():
    labels, scores = random_case(40, 6)
    groups = [str(i % 11) for i in range(40)]
    first, second = (json.dumps(summary(labels, scores, list("abcdef"), groups)) for _ in "ab")
    assert first == second


def test_clip_bootstrap_matches_the_binomial():
    # 100 clips, 80 right: standard error 0.04, so about 0.8 ± 0.078.
    labels = np.zeros(100, dtype=int)
    scores = one_hot((np.arange(100) >= 80).astype(int), 2)
    result = summary(labels, scores, ["a", "b"])
    low, high = result["accuracy_interval"]
    assert low == pytest.approx(0.722, abs=0.02)
    assert high == pytest.approx(0.878, abs=0.02)
    assert result["interval_method"] == "clip bootstrap, 2000 resamples, 100 clips"
    f1_low, f1_high = result["macro_f1_interval"]
    assert f1_low < result["macro_f1"] < f1_high


def test_groups_that_are_all_right_or_all_wrong_count_once():
    labels = np.zeros(100, dtype=int)
    groups = np.repeat(np.arange(10), 10)
    scores = one_hot((groups >= 8).astype(int), 2)
    by_clip = summary(labels, scores, ["a", "b"])["accuracy_interval"]
    result = summary(labels, scores, ["a", "b"], [f"g{g}" for g in groups])
    low, high = result["accuracy_interval"]
    assert result["interval_method"] == "group bootstrap, 2000 resamples, 10 groups"
    # Standard error sqrt(0.8 · 0.2 / 10) = 0.126 instead of 0.04.
    assert high - low == pytest.approx(0.5, abs=0.11)
    assert high - low > 2.5 * (by_clip[1] - by_clip[0])


def test_group_bootstrap_matches_a_slow_one():
    labels, scores = random_case(60, 4)
    groups = np.random.default_rng(5).integers(0, 12, 60)
    result = summary(labels, scores, list("abcd"), [str(g) for g in groups])
    generator = np.random.default_rng(7)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    f1s = []
    for _ in range(1000):
        drawn = generator.integers(0, len(members), len(members))
        clips = np.concatenate([members[g] for g in drawn])
        truth, guess = labels[clips], scores[clips].argmax(1)
        f1s.append(
            precision_recall_fscore_support(
                truth, guess, labels=np.unique(truth), average="macro", zero_division=0
            )[2]
        )
    np.testing.assert_allclose(
        result["macro_f1_interval"], np.quantile(f1s, [0.025, 0.975]), atol=0.025
    )


@pytest.mark.parametrize(
    ("groups", "method"),
    [
        (None, "clip bootstrap, 2000 resamples, 12 clips"),
        ([None] * 12, "clip bootstrap, 2000 resamples, 12 clips"),
        ([f"g{i}" for i in range(12)], "clip bootstrap, 2000 resamples, 12 clips"),
        ([None, *"abcdefghijj"], "group bootstrap, 2000 resamples, 11 groups"),
        (list("aaabbbcccddd"), "group bootstrap, 2000 resamples, 4 groups (too narrow"),
    ],
)
def test_method_names_what_was_resampled(groups, method):
    labels = np.arange(12) % 2
    scores = one_hot([0, 1] * 4 + [1, 1, 0, 1], 2)
    assert summary(labels, scores, ["a", "b"], groups)["interval_method"].startswith(method)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_falls_back_to_wilson(right):
    labels = np.arange(40) % 2
    scores = one_hot(labels if right else 1 - labels, 2)
    groups = [str(i // 4) for i in range(40)]
    result = summary(labels, scores, ["a", "b"], groups)
    # z² / (n + z²) with n = 10 groups, not 40 clips.
    width = 1.96**2 / (10 + 1.96**2)
    expected = [1 - width, 1.0] if right else [0.0, width]
    assert result["accuracy_interval"] == pytest.approx(expected, abs=1e-3)
    assert result["macro_f1_interval"] is None
    accuracy = 1 if right else 0
    assert result["interval_method"] == (
        f"Wilson over 10 groups, as all groups have accuracy {accuracy}; none for macro F1"
    )


def test_groups_of_equal_accuracy_keep_their_f1_interval():
    labels = np.array([0, 1, 1] * 10)
    wrong = np.arange(10) % 3 + 3 * np.arange(10)  # one in each group of three
    predicted = labels.copy()
    predicted[wrong] = 1 - predicted[wrong]
    groups = [str(i // 3) for i in range(30)]
    result = summary(labels, one_hot(predicted, 2), ["a", "b"], groups)
    assert result["interval_method"].startswith("Wilson over 10 groups")
    assert "macro F1: group bootstrap" in result["interval_method"]
    assert result["macro_f1_interval"] is not None


@pytest.mark.parametrize(
    ("n", "groups", "what"), [(1, None, "clip"), (1, ["g"], "clip"), (6, ["g"] * 6, "group")]
)
def test_one_unit_has_no_interval(n, groups, what):
    labels, scores = random_case(n, 3)
    result = summary(labels, scores, list("abc"), groups)
    assert result["accuracy_interval"] is None
    assert result["macro_f1_interval"] is None
    assert result["interval_method"].startswith(f"none: a single {what} ")


def test_a_large_set_is_summarised_without_a_loop_over_resamples_and_classes():
    labels, scores = random_case(4000, 101)
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event.endswith("call")

    sys.setprofile(count)
    try:
        result = summary(labels, scores, [str(k) for k in range(101)])
    finally:
        sys.setprofile(None)
    assert calls < 4000, "fewer than one for each clip"
    low, high = result["accuracy_interval"]
    assert low < result["accuracy"] < high


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], np.zeros((0, 2)), "N >= 1"),
        ([0, 1], np.zeros((2, 3)), "2 classes need"),
        ([0, 2], np.zeros((2, 2)), "from 0 to 1"),
        ([0, -1], np.zeros((2, 2)), "from 0 to 1"),
        ([0.0, 1.0], np.zeros((2, 2)), "integers"),
        ([0, 1], np.full((2, 2), np.nan), "finite"),
    ],
)
def test_impossible_input_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        summary(labels, scores, ["a", "b"])


def test_groups_must_cover_the_clips():
    with pytest.raises(ValueError, match="2 clips need 2 groups"):
        summary([0, 1], np.eye(2), ["a", "b"], ["g"])


def test_sign_flip_by_hand():
    # Differences 1, 1, 1: only + + + and - - - reach a total of 3.
    assert paired_sign_flip([1, 1, 1], [0, 0, 0]) == 2 / 8
    # Differences 2 and -1 (by group): |±2 ± 1| >= 1 always.
    assert paired_sign_flip([1, 1, 0], [0, 0, 1], ["x", "x", "y"]) == 1.0
    # One group swaps as a whole, however many clips it has.
    assert paired_sign_flip(np.ones(50), np.zeros(50), ["g"] * 50) == 1.0
    assert paired_sign_flip([1, 0, 1], [1, 0, 1]) == 1.0


def test_sign_flip_is_symmetric_and_ignores_ties():
    a, b = [1, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1]
    assert paired_sign_flip(a, b) == paired_sign_flip(b, a)
    # Of the differences 1 1 1 0 -1 0 four count: 1 + 4 of 16 signs reach 2, on either side.
    assert paired_sign_flip(a, b) == 10 / 16


def test_random_flips_agree_with_all_of_them(monkeypatch):
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.6, 1, 12), generator.normal(0, 1, 12)
    exact = paired_sign_flip(a, b)
    monkeypatch.setattr(statistics, "MAX_EXACT_GROUPS", 3)
    drawn = paired_sign_flip(a, b)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.015)
    assert drawn == paired_sign_flip(a, b)


def test_random_flips_never_give_zero():
    assert paired_sign_flip(np.ones(300), np.zeros(300)) == 1 / (statistics.MONTE_CARLO_FLIPS + 1)


def test_sign_flip_holds_its_level():
    generator = np.random.default_rng(1)
    p = [paired_sign_flip(*generator.integers(0, 2, (2, 10))) for _ in range(400)]
    assert np.mean(np.array(p) <= 0.05) <= 0.08


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([1, float("nan")], [0, 0])])
def test_sign_flip_refuses_what_is_not_paired(a, b):
    with pytest.raises(ValueError, match="scores must be"):
        paired_sign_flip(a, b)


def test_importing_metrics_is_light():
    code = (
        "import sys, vidfuse.metrics, vidfuse.statistics; "
        "sys.exit(bool({'torch', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_run_repeated_is_the_run():
    labels, scores = random_case(60, 4)
    groups = [f"g{i % 12}" for i in range(60)]
    once = summary(labels, scores, list("abcd"), groups)
    thrice = repeated_summary(labels, [scores.argmax(1)] * 3, 4, groups)
    for name in ("accuracy", "macro_f1", "accuracy_interval", "macro_f1_interval"):
        assert thrice[name] == pytest.approx(once[name])
    assert thrice["interval_method"] == once["interval_method"]
    assert thrice["accuracy_by_run"] == [once["accuracy"]] * 3


def test_runs_are_averaged():
    labels = np.array([0, 0, 1, 1])
    runs = [[0, 0, 1, 1], [1, 1, 1, 1]]
    result = repeated_summary(labels, runs, 2, list("abcd"))
    assert result["accuracy_by_run"] == [1.0, 0.5]
    assert result["accuracy"] == 0.75
    assert result["macro_f1"] == pytest.approx((1 + (0 + 2 / 3) / 2) / 2)
    with pytest.raises(ValueError, match="predictions"):
        repeated_summary(labels, labels, 2)


def test_the_interval_of_a_mean_draws_groups():
    groups = [f"g{i // 10}" for i in range(200)]
    of_group = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    low, high = mean_interval(of_group, groups) or (0, 0)
    wide = high - low
    assert low < of_group.mean() < high
    assert wide == pytest.approx(2 * 1.96 * of_group.std() / 20**0.5, rel=0.15)
    low, high = mean_interval(of_group) or (0, 0)  # as if clips were independent
    assert high - low < wide / 2
    assert mean_interval([1.0, 2.0], ["g", "g"]) is None
    assert mean_interval([1.0, 1.0]) is None


def test_holm_by_hand():
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    # sorted: 0.01·3, then 0.02·2 = 0.04, then 0.9
    assert holm([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.04])
    # never smaller than that of a smaller p-value, never above 1
    assert holm([0.02, 0.021, 0.6]) == pytest.approx([0.06, 0.06, 0.6])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
