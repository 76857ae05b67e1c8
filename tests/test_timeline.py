"""Metrics of timelines, against implementations that are written in another way."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from vidfuse.data.timeline import Segment
from vidfuse.timeline.counts import OVERLAPS, TIOUS, VideoPair
from vidfuse.timeline.metrics import (
    average_precision,
    detections_right,
    edit_score,
    frame_confusion,
    overlaps,
    segments_right,
)
from vidfuse.timeline.results import TimelineMetrics
from vidfuse.timeline.summary import NOTHING, summarise_timelines

CLASSES = ["jump", "run", "sit"]
RATE = 10.0
SECONDS = 30.0


def by_time(segments):
    return sorted(segments, key=lambda each: (each.start, each.end, each.label))


def random_segments(generator, *, overlapping=False, count=12, seconds=SECONDS):
    """Segments at whole tenths, with scores of which many are equal."""
    found, time = [], 0.0
    for _ in range(count):
        start = generator.integers(0, 10 * seconds - 60) / 10 if overlapping else time
        start += generator.integers(0, 12) / 10
        end = start + generator.integers(1, 60) / 10
        if end > seconds:
            break
        label = CLASSES[generator.integers(len(CLASSES))]
        found.append(
            Segment(round(start, 1), round(end, 1), label, float(generator.integers(1, 6)) / 5)
        )
        time = end
    return by_time(found)


def disturbed(segments, generator):
    """The segments, some shifted, renamed, lost or cut."""
    found = []
    for each in segments:
        shift = generator.integers(-8, 9) / 10
        moved = replace(
            each,
            start=round(max(0.0, each.start + shift), 1),
            end=round(max(each.start + shift, each.end + shift / 2), 1),
        )
        chance = generator.random()
        if chance < 0.2:
            moved = replace(moved, label=CLASSES[generator.integers(len(CLASSES))])
        if chance > 0.1 and moved.end > moved.start:
            found.append(moved)
    return by_time(found)


def random_pairs(seed, videos=6, groups=None):
    generator = np.random.default_rng(seed)
    pairs = []
    for index in range(videos):
        truth = random_segments(generator)
        group = None if groups is None else f"g{index % groups}"
        pairs.append(VideoPair(f"v{index}.mp4", truth, disturbed(truth, generator), SECONDS, group))
    return pairs


def labels_at_moments(segments, count, rate=RATE):
    """The set of labels at each moment, one moment after the other."""
    return [
        {each.label for each in segments if each.start <= (k + 0.5) / rate < each.end}
        for k in range(count)
    ]


# Frames


def test_frames_by_hand():
    truth = [Segment(0, 0.5, "jump"), Segment(0.5, 0.8, "run")]
    predicted = [Segment(0.2, 0.6, "jump", 0.9)]
    table = frame_confusion(truth, predicted, CLASSES, seconds=1, rate=10)
    #           jump run sit nothing
    expected = [
        [3, 0, 0, 2],
        [1, 0, 0, 2],
        [0, 0, 0, 0],
        [0, 0, 0, 2],
    ]
    assert table.tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_frames_agree_with_scikit_learn(seed):
    pairs = random_pairs(seed)
    true: list[str] = []
    guessed: list[str] = []
    for pair in pairs:
        for found, segments in ((true, pair.truth), (guessed, pair.predicted)):
            for k in range(int(SECONDS * RATE)):
                inside = [s for s in segments if s.start <= (k + 0.5) / RATE < s.end]
                inside.sort(key=lambda s: (-(s.score or 0), CLASSES.index(s.label)))
                found.append(inside[0].label if inside else NOTHING)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    names = [*CLASSES, NOTHING]
    assert result.labels == names
    assert result.confusion_matrix == confusion_matrix(true, guessed, labels=names).tolist()
    assert result.frame_accuracy.value == pytest.approx(accuracy_score(true, guessed))
    kept = [pair for pair in zip(true, guessed, strict=True) if pair[0] != NOTHING]
    assert result.foreground_accuracy.value == pytest.approx(
        accuracy_score(*zip(*kept, strict=True))
    )
    each = f1_score(true, guessed, labels=CLASSES, average=None)
    assert [one.frame_f1.value for one in result.per_class] == pytest.approx(each)
    assert result.frame_f1.value == pytest.approx(
        f1_score(true, guessed, labels=CLASSES, average="macro")
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_moment_is_right_if_it_is_one_of_several_true_classes(seed):
    generator = np.random.default_rng(seed)
    truth = random_segments(generator, overlapping=True)
    predicted = random_segments(generator)
    count = int(SECONDS * RATE)
    sets = labels_at_moments(truth, count)
    assert any(len(each) > 1 for each in sets)
    guesses = [next(iter(each), None) for each in labels_at_moments(predicted, count)]
    right = sum(
        guess in true if true else guess is None for true, guess in zip(sets, guesses, strict=True)
    )
    table = frame_confusion(truth, predicted, CLASSES, seconds=SECONDS, rate=RATE)
    assert np.trace(table) == right
    assert table.sum() == count


def test_the_prediction_with_the_highest_score_counts():
    truth = [Segment(0, 1, "run")]
    both = [Segment(0, 1, "jump", 0.4), Segment(0, 1, "run", 0.6)]
    table = frame_confusion(truth, both, CLASSES, seconds=1, rate=10)
    assert table[1, 1] == 10
    tie = [replace(each, score=None) for each in both]
    assert frame_confusion(truth, tie, CLASSES, seconds=1, rate=10)[1, 0] == 10


# Segments


def overlap_of(one, two):
    shared = min(Fraction(one.end), Fraction(two.end)) - max(
        Fraction(one.start), Fraction(two.start)
    )
    hull = max(Fraction(one.end), Fraction(two.end)) - min(Fraction(one.start), Fraction(two.start))
    return shared / hull if shared > 0 else Fraction(0)


def test_overlaps():
    one = [Segment(0, 2, "a"), Segment(3, 3, "a")]
    two = [Segment(1, 3, "a"), Segment(3, 3, "a"), Segment(5, 6, "a")]
    assert overlaps(one, two).tolist() == [[1 / 3, 0, 0], [0, 1, 0]]
    generator = np.random.default_rng(0)
    some, others = (random_segments(generator, overlapping=True) for _ in range(2))
    expected = [[float(overlap_of(a, b)) for b in others] for a in some]
    assert overlaps(some, others) == pytest.approx(np.array(expected))


def counts_as_published(truth, predicted, overlap):
    """True and false positives and false negatives of a video, all classes in one loop."""
    tp = fp = 0
    hits = [False] * len(truth)
    for guess in predicted:
        best, place = Fraction(0), None
        for index, one in enumerate(truth):
            if one.label == guess.label and overlap_of(one, guess) > best:
                best, place = overlap_of(one, guess), index
        if place is not None and float(best) >= overlap and not hits[place]:
            tp += 1
            hits[place] = True
        else:
            fp += 1
    return tp, fp, hits.count(False)


@pytest.mark.parametrize("seed", range(5))
def test_segmental_f1_agrees_with_exhaustive_loops(seed):
    pairs = random_pairs(seed)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    for overlap in OVERLAPS:
        tp, fp, fn = np.sum(
            [counts_as_published(p.truth, p.predicted, overlap / 100) for p in pairs], axis=0
        )
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        expected = 2 * precision * recall / (precision + recall)
        assert 0 < expected < 1
        assert result.segment_f1[str(overlap)].value == pytest.approx(expected)
        for video, pair in zip(result.videos, pairs, strict=True):
            tp, fp, fn = counts_as_published(pair.truth, pair.predicted, overlap / 100)
            assert video.segment_f1[str(overlap)] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_a_true_segment_makes_one_right():
    truth = [Segment(0, 10, "a"), Segment(20, 30, "a")]
    predicted = [Segment(0, 6, "a"), Segment(6, 10, "a"), Segment(21, 30, "a")]
    assert segments_right(truth, predicted, 0.25).tolist() == [True, False, True]
    assert segments_right(truth, predicted, 0.5).tolist() == [True, False, True]
    assert segments_right(truth, predicted, 0.95).tolist() == [False, False, False]
    assert segments_right([], predicted, 0.1).tolist() == [False] * 3
    assert segments_right(truth, [], 0.1).tolist() == []


def test_no_second_choice_in_f1_but_in_average_precision():
    """Two predictions of which both overlap the first true segment most."""
    truth = [Segment(0, 10, "a"), Segment(8, 12, "a")]
    predicted = [Segment(0, 10, "a", 0.9), Segment(5, 12, "a", 0.5)]
    assert overlaps(predicted, truth)[1].tolist() == pytest.approx([5 / 12, 4 / 7])
    truth[1] = Segment(9, 12, "a")
    assert overlaps(predicted, truth)[1].tolist() == pytest.approx([5 / 12, 3 / 7])
    truth[1] = Segment(9.5, 12, "a")
    assert segments_right(truth, predicted, 0.3).tolist() == [True, False]
    assert detections_right(truth, predicted, 0.3).tolist() == [True, True]


def distance(one, two):
    @cache
    def below(i, j):
        if not i or not j:
            return i + j
        return min(
            below(i - 1, j) + 1,
            below(i, j - 1) + 1,
            below(i - 1, j - 1) + (one[i - 1] != two[j - 1]),
        )

    return below(len(one), len(two))


def test_edit_score_agrees_with_recursion():
    generator = np.random.default_rng(0)
    for _ in range(100):
        one, two = (
            tuple(generator.choice(list("abc"), generator.integers(1, 12))) for _ in range(2)
        )
        expected = 1 - distance(one, two) / max(len(one), len(two))
        assert edit_score(one, two) == pytest.approx(expected)


def test_edit_score_by_hand():
    assert edit_score("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_score("", "") == 1
    assert edit_score("a", "") == edit_score("", "ab") == 0
    assert edit_score("ab", "ab") == 1
    assert edit_score("ab", "aab") == pytest.approx(2 / 3)


# Detections


def explicit_average_precision(scores, right, positives):
    """Sum over the levels of recall of the highest precision at this or a larger one."""
    thresholds = sorted(set(scores), reverse=True)
    curve = []
    for least in thresholds:
        chosen = [r for s, r in zip(scores, right, strict=True) if s >= least]
        curve.append((sum(chosen) / positives, sum(chosen) / len(chosen)))
    total = before = 0.0
    for recall in sorted({recall for recall, _ in curve}):
        total += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return total


def test_average_precision_by_hand():
    # precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3: the third true segment is never found.
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1], 3).tolist() == pytest.approx(
        [1 / 3 + 1 / 3 * 2 / 3]
    )
    # A false positive behind all that is right costs nothing, one before costs.
    assert average_precision([0.9, 0.1], [1, 0], 1).tolist() == [1]
    assert average_precision([0.9, 0.1], [0, 1], 1).tolist() == [0.5]
    # In a tie neither comes first.
    assert average_precision([0.5, 0.5], [0, 1], 1).tolist() == [0.5]
    assert average_precision([0.5, 0.5], [1, 0], 1).tolist() == [0.5]
    assert average_precision([], [], 2).tolist() == [0]
    assert np.isnan(average_precision([0.5], [0], 0)).all()


def test_average_precision_agrees_with_explicit_sums():
    generator = np.random.default_rng(0)
    for _ in range(50):
        count = int(generator.integers(1, 30))
        scores = generator.integers(0, 8, count) / 8
        right = generator.random(count) < 0.5
        positives = int(right.sum() + generator.integers(1, 4))
        expected = explicit_average_precision(scores.tolist(), right.tolist(), positives)
        assert average_precision(scores, right, positives)[0] == pytest.approx(expected)


def test_weights_are_repetitions():
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 8, 20) / 8
    right = generator.random(20) < 0.5
    times = generator.integers(0, 4, (7, 20))
    positives = (times * right).sum(1) + 2
    found = average_precision(scores, right, positives, times)
    for row, repeated in enumerate(times):
        expected = explicit_average_precision(
            np.repeat(scores, repeated).tolist(),
            np.repeat(right, repeated).tolist(),
            positives[row],
        )
        assert found[row] == pytest.approx(expected)


def matched_by_hand(truth, predicted, overlap):
    """Right detections of a video and class, by asking each true segment who may have it."""
    order = sorted(predicted, key=lambda p: (-p.score, p.start, p.end))
    free = list(truth)
    right = []
    for guess in order:
        candidates = [(overlap_of(guess, one), -index) for index, one in enumerate(free)]
        best = max(candidates, default=(Fraction(0), 0))
        if float(best[0]) >= overlap:
            del free[-best[1]]
            right.append(guess)
    return right


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_agrees_with_explicit_sums(seed):
    pairs = random_pairs(seed)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    for tiou in TIOUS:
        each = []
        for label in CLASSES:
            scores, right, positives = [], [], 0
            for pair in pairs:
                truth = [one for one in pair.truth if one.label == label]
                predicted = [one for one in pair.predicted if one.label == label]
                found = matched_by_hand(truth, predicted, tiou)
                scores += [one.score for one in predicted]
                right += [one in found for one in predicted]
                positives += len(truth)
            each.append(explicit_average_precision(scores, right, positives))
        assert result.mean_ap[str(tiou)].value == pytest.approx(np.mean(each))
        if tiou == 0.5:
            values = [one.average_precision.value for one in result.per_class]
            assert values == pytest.approx(each)
    assert result.mean_ap["mean"].value == pytest.approx(
        np.mean([result.mean_ap[str(tiou)].value for tiou in TIOUS])
    )


# Events


def test_events_are_counted_and_correlate():
    pairs = random_pairs(3, videos=8)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    for one in result.per_class:
        true, predicted = (
            [Counter(each.label for each in side)[one.label] for side in sides]
            for sides in ([p.truth for p in pairs], [p.predicted for p in pairs])
        )
        assert (one.events.true, one.events.predicted) == (sum(true), sum(predicted))
        assert one.events.ratio == pytest.approx(sum(predicted) / sum(true))
        expected = np.corrcoef(true, predicted)[0, 1]
        assert one.events.correlation == pytest.approx(expected)
        lengths = [
            sum(each.end - each.start for each in pair.truth if each.label == one.label)
            for pair in pairs
        ]
        assert one.seconds.true == pytest.approx(sum(lengths))
    assert [each.true_events for each in result.videos] == [len(pair.truth) for pair in pairs]


def test_no_correlation_of_two_videos_or_of_the_same_amounts():
    pairs = random_pairs(0, videos=2)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    assert all(one.events.correlation is None for one in result.per_class)
    same = [
        VideoPair(f"{i}", [Segment(0, 1, "run")], [Segment(0, i + 1, "run")], 9) for i in range(4)
    ]
    (run,) = summarise_timelines(same, ["run"], rate=RATE).per_class
    assert run.events.correlation is run.seconds.correlation is None
    assert run.seconds.ratio == 10 / 4


# All together


def numbers(result):
    """All numbers that are measured, without intervals and baselines."""
    flat = {
        "frame": result.frame_accuracy.value,
        "foreground": result.foreground_accuracy.value,
        "f1": result.frame_f1.value,
        "edit": result.edit_score.value,
    }
    flat |= {f"F1@{name}": each.value for name, each in result.segment_f1.items()}
    return flat | {f"mAP@{name}": each.value for name, each in result.mean_ap.items()}


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_prediction_has_1_everywhere(seed):
    pairs = [replace(pair, predicted=pair.truth) for pair in random_pairs(seed)]
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    assert set(numbers(result).values()) == {1.0}
    for one in result.per_class:
        assert one.frame_f1.value == one.segment_f1.value == one.average_precision.value == 1
        assert one.precision == one.recall == one.events.ratio == one.seconds.ratio == 1
        assert one.events.correlation == pytest.approx(1)
    assert result.frame_accuracy.interval is None  # the same in all resamples
    for baseline in ("most_frequent", "chance"):
        assert getattr(result.frame_accuracy, baseline) < 1
        assert getattr(result.segment_f1["50"], baseline) < 0.5


def test_the_order_of_videos_means_nothing():
    pairs = random_pairs(1, groups=3)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    shuffled = [pairs[i] for i in (3, 0, 5, 1, 4, 2)]
    backwards = [
        replace(pair, truth=pair.truth[::-1], predicted=pair.predicted[::-1]) for pair in shuffled
    ]
    assert summarise_timelines(backwards, CLASSES, rate=RATE) == result


def test_a_result_can_be_made_of_its_json_again():
    result = summarise_timelines(random_pairs(1, groups=3), CLASSES, rate=RATE)
    assert TimelineMetrics.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_cutting_a_segment_changes_segments_and_no_frame():
    truth = [Segment(0, 10, "run"), Segment(12, 20, "sit")]
    cut = [Segment(0, 4.23, "run"), Segment(4.23, 10, "run"), Segment(12, 20, "sit")]
    whole, parts = (
        summarise_timelines([VideoPair("a", truth, each, SECONDS)], CLASSES, rate=RATE)
        for each in (truth, cut)
    )
    assert parts.frame_accuracy == whole.frame_accuracy
    assert parts.confusion_matrix == whole.confusion_matrix
    assert parts.segment_f1["50"].value == pytest.approx(2 * 2 / (2 + 3))
    assert parts.edit_score.value == pytest.approx(2 / 3)
    assert [one.seconds.predicted for one in parts.per_class] == pytest.approx([0, 10, 8])


def test_nothing_predicted_and_nothing_true():
    truth = [Segment(0, 15, "run", None)]
    pairs = [VideoPair("a", truth, [], SECONDS), VideoPair("b", [], [], SECONDS)]
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    assert result.frame_accuracy.value == 0.75
    assert result.frame_accuracy.most_frequent == 0.75  # no class at all
    assert result.foreground_accuracy.value == result.frame_f1.value == 0
    assert result.foreground_accuracy.most_frequent == 1
    assert result.segment_f1["10"].value == 0
    assert result.edit_score.value == 0.5
    assert [each.edit_score for each in result.videos] == [0, 1]
    assert result.videos[1].segment_f1["10"] is None
    assert result.mean_ap["0.5"].value is None  # nothing has a score
    jump = result.per_class[0]
    assert jump.frame_f1.value is jump.segment_f1.value is jump.events.ratio is None
    with pytest.raises(ValueError, match="no true segment"):
        summarise_timelines(pairs[1:], CLASSES, rate=RATE)


def test_point_events_alone_can_be_measured():
    pairs = [VideoPair("a", [Segment(3, 3, "run")], [Segment(3, 3, "run", 0.5)], SECONDS)]
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    assert result.segment_f1["50"].value == result.mean_ap["0.7"].value == 1
    assert result.foreground_accuracy.value is None
    assert result.frame_accuracy.value == 1


def test_intervals_draw_whole_groups():
    """The bootstrap of frame accuracy, drawn by hand."""
    pairs = random_pairs(2, videos=8, groups=4)
    result = summarise_timelines(pairs, CLASSES, rate=RATE)
    assert result.frame_accuracy.interval is not None
    assert result.frame_accuracy.value is not None
    low, high = result.frame_accuracy.interval
    right = np.zeros(4)
    for index, pair in enumerate(pairs):
        table = frame_confusion(pair.truth, pair.predicted, CLASSES, seconds=SECONDS, rate=RATE)
        right[index % 4] += np.trace(table) / (2 * SECONDS * RATE)
    drawn = np.random.default_rng(5).choice(right, (20_000, 4)).mean(1)
    assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)
    assert low < result.frame_accuracy.value < high
    assert result.interval_method.startswith("group bootstrap, 2000 resamples, 4 groups (too")
    alone = summarise_timelines([replace(pair, group="one") for pair in pairs], CLASSES, rate=RATE)
    assert alone.frame_accuracy.interval is None
    assert alone.interval_method == "none: a single group says nothing about other groups"


def test_baselines_by_hand():
    """Of 40 s, 16 are `run` and 4 are `sit`."""
    truth = [Segment(0, 16, "run", None), Segment(20, 24, "sit", None)]
    guess = [Segment(0, 1, "run", 0.5)]
    result = summarise_timelines([VideoPair("a", truth, guess, 40)], CLASSES, rate=RATE)
    assert result.foreground_accuracy.most_frequent == pytest.approx(0.8)
    assert result.frame_f1.most_frequent == pytest.approx((2 * 16 / (16 + 40)) / 2)
    assert result.segment_f1["25"].most_frequent == pytest.approx(2 / 3)
    assert result.segment_f1["50"].most_frequent == 0
    assert result.edit_score.most_frequent == 0.5
    assert result.mean_ap["0.3"].most_frequent == 0.5
    assert result.frame_accuracy.most_frequent == pytest.approx(0.5)
    many = [replace(VideoPair(f"{i}", truth, guess, 40)) for i in range(60)]
    chance = summarise_timelines(many, CLASSES, rate=RATE).frame_accuracy.chance
    assert chance == pytest.approx(0.4**2 + 0.1**2 + 0.5**2, abs=0.03)
