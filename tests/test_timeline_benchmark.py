"""What the benchmarks of long videos are measured on, and how two F1 are compared."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import av
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def timeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("timeline")


@pytest.fixture
def long_video(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("long_video")


def write_grey(path: Path, level: int, frames: int, rate: int = 25) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        image = np.full((48, 64, 3), level, np.uint8)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_cross_fade_changes_its_class_in_the_middle(timeline, tmp_path):
    dark = timeline.Piece(write_grey(tmp_path / "dark.mp4", 20, 50), "dark")
    gap = timeline.Piece(write_grey(tmp_path / "gap.mp4", 100, 25, rate=10), None)
    light = timeline.Piece(write_grey(tmp_path / "light.mp4", 220, 50), "light")
    frames = list(timeline.joined([dark, light], timeline.FADE))
    assert [label for _, label in frames] == ["dark"] * 44 + ["light"] * 44
    levels = np.array([frame.mean() for frame, _ in frames])
    assert levels[:37] == pytest.approx(20, abs=3)
    assert levels[51:] == pytest.approx(220, abs=3)
    assert (np.diff(levels[38:50]) > 10).all()
    frames = list(timeline.joined([dark, gap, light], 0))
    labels = [label for _, label in frames]
    assert labels == ["dark"] * 50 + [None] * round(2.5 * timeline.FPS) + ["light"] * 50
    path = tmp_path / "long.mp4"
    segments = timeline.write_video(path, [dark, gap, light], timeline.FADE)
    assert [label for _, _, label in segments] == ["dark", "light"]
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == segments[-1][1]


def scored(right: list[int], predicted: list[int], true: list[int]) -> SimpleNamespace:
    """An evaluation that knows the counts of each video."""
    videos = [
        SimpleNamespace(
            path=f"{number}.mp4",
            true_events=some,
            predicted_events=found,
            segment_f1={"50": 2 * hits / (some + found) if some + found else None},
        )
        for number, (hits, found, some) in enumerate(zip(right, predicted, true, strict=True))
    ]
    return SimpleNamespace(videos=videos)


def test_the_interval_of_a_difference_is_paired(timeline):
    """Videos are hard or easy for both; their difference is the same in each."""
    true = [10] * 6
    one = scored([1, 2, 4, 6, 8, 9], [10] * 6, true)
    other = scored([0, 1, 3, 5, 7, 8], [10] * 6, true)
    counts = timeline.segment_counts(one)
    assert timeline.f1_of(counts.sum(0)) == pytest.approx(0.5)
    assert timeline.gain(one, one) == ""
    assert timeline.gain(one, other) == "+10.0", "no resample differs"
    better = scored([3, 3, 5, 7, 9, 10], [10] * 6, true)
    text = timeline.gain(better, other)
    value, low, high = (float(part.strip("[],")) for part in text.split())
    assert value == pytest.approx(100 * 13 / 60, abs=0.05)
    assert 19 < low < value < high < 28
    empty = scored([0, 5], [0, 10], [0, 10])
    assert timeline.segment_counts(empty).tolist() == [[0, 0], [5, 20]]


def test_a_video_is_repeated_as_it_is(long_video, monkeypatch, tmp_path):
    monkeypatch.setattr(long_video, "LOOP", 2.0)
    clips = tmp_path / "clips"
    clips.mkdir()
    write_grey(clips / "a.mp4", 80, 40)
    write_grey(clips / "b.mp4", 160, 40)
    once = long_video.loop(clips, tmp_path / "loop.mp4")
    path = long_video.repeated(once, tmp_path / "long.mp4", 3)
    with av.open(str(path)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx(np.arange(150) / 25, abs=1e-3)
