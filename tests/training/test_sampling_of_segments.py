"""Windows and samples that go by the length of annotated segments."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vidfuse.data.annotated import AnnotatedVideo
from vidfuse.data.timeline import Segment
from vidfuse.training.config import DENSE, WINDOWED, TrainConfig
from vidfuse.training.timeline import with_sampling


def annotated(*lengths: float) -> list[AnnotatedVideo]:
    """A video with segments of these lengths, a point event and much background."""
    segments = [Segment(10, 10 + length, "x") for length in lengths]
    segments += [
        Segment(0, 0, "point"),
        Segment(0, 0.1, "background"),
        Segment(1, 1.1, "background"),
    ]
    return [AnnotatedVideo(Path("a.mp4"), segments)]


@pytest.mark.parametrize(
    ("lengths", "window", "rate"),
    [
        ((4, 5, 9), 3.2, 5),
        ((1.6, 1.6, 3.2), 1.6, 10),
        ((math.inf, 2, math.inf), 3.2, 5),
        ((0.1, 0.1, 0.1), 0.64, 25),
        ((), 3.2, 5),
    ],
)
def test_they_fit_the_segments(lengths, window, rate):
    videos = annotated(*lengths)
    windowed = with_sampling(TrainConfig(timeline=WINDOWED), videos)
    assert (windowed.seconds, windowed.frames) == (window, 16)
    dense = with_sampling(TrainConfig(timeline=DENSE), videos)
    assert (dense.seconds, dense.rate, dense.frames) == (30, rate, 30 * rate)


def test_who_says_something_has_it():
    videos = annotated(1.6)
    assert with_sampling(TrainConfig(timeline=WINDOWED, window=2.5), videos).seconds == 2.5
    dense = with_sampling(TrainConfig(timeline=DENSE, window=8, rate=4), videos)
    assert (dense.rate, dense.frames) == (4, 32)
    again = with_sampling(dense, videos)
    assert again == dense
