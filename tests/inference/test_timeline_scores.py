"""Scores of videos of several stretches, whose samples may be further apart than these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pattern import write_pattern

from vidfuse.errors import InputError
from vidfuse.features.dense import dense_features, window_rate
from vidfuse.inference import timeline as module
from vidfuse.inference.config import TimelineConfig
from vidfuse.inference.predictor import find_model
from vidfuse.inference.timeline import TimelinePredictor, sample_times
from vidfuse.progress import Reporter

SECONDS = 101


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five stretches of 20 seconds, and one of a second."""
    path = tmp_path_factory.mktemp("long") / "video.mp4"
    options = "-c:v libx264 -g 20 -preset ultrafast -pix_fmt yuv420p -force_key_frames 100"
    return write_pattern(path, options, rate=4, seconds=SECONDS)


def predictor_of(run: str, window: float) -> TimelinePredictor:
    config = TimelineConfig(use_cache=False, workers=1, window=window)
    return TimelinePredictor(find_model(run, Reporter()), config, Reporter())


@pytest.mark.parametrize("window", [2.0, 8.0, 160.0, 3600.0])
def test_a_video_is_one_part(video: Path, run: str, window: float):
    """Each sample has its scores once, and the last segment ends with the video."""
    predictor = predictor_of(run, window)
    found = predictor.scores(video)
    record = predictor.timeline(video)
    predictor.pool.close()
    (part,) = found.parts
    assert (part.first, part.end, found.duration) == (0, SECONDS, SECONDS)
    assert found.fps == pytest.approx(4)
    assert len(part.scores) == max(1, round(SECONDS * predictor.rate))
    assert part.scores.sum(1) == pytest.approx(np.ones(len(part.scores)))
    assert record.segments[0].start == 0
    assert record.segments[-1].end == record.duration == SECONDS
    assert all(each.start < each.end for each in record.segments)


def test_a_stretch_that_cannot_be_read_is_a_gap(
    video: Path, run: str, monkeypatch: pytest.MonkeyPatch
):
    real = dense_features

    def damaged(*given: Any) -> Iterator[Any]:
        for number, (stretch, entry) in enumerate(real(*given)):
            yield stretch, InputError(video, "damaged") if number == 1 else entry

    monkeypatch.setattr(module, "dense_features", damaged)
    predictor = predictor_of(run, 8.0)
    found = predictor.scores(video)
    record = predictor.timeline(video)
    predictor.pool.close()
    first, second = found.parts
    assert found.warnings == ["20.0 to 40.0 s: damaged"]
    assert (first.first, first.end) == (0, 20)
    assert (second.first / predictor.rate, second.end) == (40, SECONDS)
    assert all(each.end <= 20 or each.start >= 40 for each in record.segments)


@pytest.mark.parametrize("seconds", [2.34, 3.2, 1.7, 0.019])
def test_times_are_not_those_of_a_rounded_rate(seconds: float) -> None:
    """The times of 16 samples in so many seconds, for an hour: they read as they are."""
    numbers = np.arange(0, int(3600 / seconds * 16))
    true = numbers * seconds / 16
    times = sample_times(window_rate(16, seconds), numbers)
    assert (np.diff(times) > 0).all(), "no two became one"
    whole = np.isclose(true, np.round(true, 3), rtol=0, atol=1e-9)
    assert whole.any()
    assert (times[whole] == np.round(true[whole], 3)).all()


def test_times_that_are_no_milliseconds_stay() -> None:
    numbers = np.arange(1, 30)
    times = sample_times(6.0, numbers)
    assert times[numbers % 6 == 1] == pytest.approx(numbers[numbers % 6 == 1] / 6, abs=1e-9)
    assert round(float(sample_times(window_rate(16, 2.34), np.array([180]))[0]), 6) == 26.325
