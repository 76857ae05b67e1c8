"""Windows slid over a video: every sample is scored once, whatever parts the features come in."""

from __future__ import annotations

import numpy as np
import pytest

from vidfuse.inference.windows import SlidingWindow


def classify(features, lengths):
    """Probabilities of two classes: the mean of what counts in a window, and the rest."""
    values = features[..., 0, 0, 0].astype(float)
    counts = np.arange(values.shape[1]) < lengths[:, None]
    means = (values * counts).sum(1) / lengths
    return np.stack([means, 1 - means], 1)


def features_of(values):
    return np.array(values, np.float16).reshape(-1, 1, 1, 1)


def slide(values, length, step, parts):
    window = SlidingWindow(length, step, classify)
    rows = [window.add(each) for each in np.split(features_of(values), parts)]
    rows.append(window.finish())
    return np.concatenate([row for row in rows if len(row)]), rows


def by_hand(values, length, step):
    """The definition, window by window."""
    values = features_of(values)[:, 0, 0, 0].astype(float)
    count = len(values)
    length = min(length, count)
    starts = list(range(0, count - length + 1, step))
    if starts[-1] + length < count:
        starts.append(count - length)
    sums, totals = np.zeros(count), np.zeros(count)
    for start in starts:
        for place in range(length):
            weight = 1 - abs((place + 1) / (length + 1) * 2 - 1)
            sums[start + place] += weight * values[start : start + length].mean()
            totals[start + place] += weight
    return sums / totals


@pytest.mark.parametrize("parts", [[], [1], [5, 6], [10, 20, 30], list(range(1, 40))])
@pytest.mark.parametrize(("length", "step"), [(8, 1), (8, 3), (8, 8), (5, 4), (1, 1)])
def test_every_sample_gets_the_mean_of_its_windows(length, step, parts):
    values = np.random.default_rng(0).random(41)
    scores, _ = slide(values, length, step, parts)
    assert scores[:, 0] == pytest.approx(by_hand(values, length, step))
    assert scores.sum(1) == pytest.approx(np.ones(41))


@pytest.mark.parametrize("count", [1, 3, 7, 8, 9])
def test_short_videos(count):
    values = np.random.default_rng(1).random(count)
    scores, _ = slide(values, 8, 2, [])
    if count <= 8:  # one window
        assert np.ptp(scores[:, 0]) < 1e-12
        assert scores[0, 0] == pytest.approx(features_of(values).astype(float).mean())
    else:
        assert scores[:, 0] == pytest.approx(by_hand(values, 8, 2))


def test_no_sample_at_all():
    assert len(SlidingWindow(8, 2, classify).finish()) == 0


def test_scores_come_as_soon_as_no_window_can_change_them():
    """So memory stays that of a window and a part."""
    _, rows = slide(np.zeros(100), 8, 2, list(range(10, 100, 10)))
    behind = 10 * np.arange(1, 11) - np.cumsum([len(row) for row in rows[:-1]])
    assert (behind <= 8 + 2 + 1).all()


def test_windows_are_classified_in_batches():
    sizes = []

    def counted(features, lengths):
        sizes.append(len(features))
        return classify(features, lengths)

    window = SlidingWindow(4, 1, counted)
    window.add(features_of(np.zeros(1000)))
    window.finish()
    assert max(sizes) == 64
    assert sum(sizes) == 997
