"""Features of whole videos at even moments: arrays, and what is in them of a part that is lost."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from pattern import write_pattern

import vidfuse
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features import long_videos
from vidfuse.features.dense import dense_features

SETTINGS = {"backbone": "resnet18", "weights": "random", "layer": "layer1", "size": 32,
            "grid": "1", "workers": 1}  # fmt: skip
SECONDS, FPS = 100, 5


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 seconds in four stretches, a key frame every 5 seconds, in packets of 188 bytes."""
    path = tmp_path_factory.mktemp("long") / "video.ts"
    options = "-c:v libx264 -g 25 -preset ultrafast -pix_fmt yuv420p"
    return write_pattern(path, options, rate=FPS, seconds=SECONDS)


@pytest.fixture
def extract(tmp_path: Path):
    def run(*videos: Path | Clip, **settings):
        given = {**SETTINGS, "out": tmp_path / "out", "cache": str(tmp_path / "cache"), **settings}
        result = vidfuse.extract(list(videos), **given)
        with (tmp_path / "out" / "index.csv").open() as file:
            rows = list(csv.DictReader(file))
        return result, rows, [np.load(tmp_path / "out" / row["file"]) for row in rows]

    return run


def test_samples_are_evenly_spaced(extract, video):
    """Their frames are those that clips of one sample each have."""
    result, (row,), (array,) = extract(video, rate=0.5)
    assert (result.clips, result.failed) == (1, 0)
    assert (row["samples"], row["rate"]) == (str(len(array)), "0.5")
    assert len(array) == SECONDS / 2
    assert array.dtype == np.float32
    assert array.ndim == 2
    first = float(row["first"])
    for sample in (0, 17, len(array) - 1):
        moment = first + 2 * sample
        alone = Clip(video, start=moment, end=moment + 0.1)
        _, _, (expected,) = extract(alone, frames=1)
        np.testing.assert_allclose(array[sample], expected[0], rtol=2e-3, atol=2e-3)


def test_a_stride_counts_frames(extract, video):
    _, (row,), (array,) = extract(video, stride=10)
    assert float(row["rate"]) == pytest.approx(FPS / 10)
    assert len(array) == SECONDS * FPS / 10


def test_a_video_shorter_than_half_a_samples_distance_has_its_middle(extract, tmp_path):
    short = write_pattern(tmp_path / "short.mp4", "", rate=FPS, seconds=20)
    _, (row,), (array,) = extract(short, rate=0.011)
    assert (row["samples"], len(array)) == ("1", 1)
    first = float(row["first"])
    assert first == pytest.approx(10, abs=0.2)
    alone = Clip(short, start=first, end=first + 0.1)
    _, _, (expected,) = extract(alone, frames=1)
    np.testing.assert_allclose(array[0], expected[0], rtol=2e-3, atol=2e-3)


def test_nothing_is_computed_twice(extract, video):
    first, _, (array,) = extract(video, rate=0.5)
    again, _, (same,) = extract(video, rate=0.5)
    assert first.computed == again.reused > 2
    assert (first.reused, again.computed) == (0, 0)
    np.testing.assert_array_equal(array, same)


def test_a_stretch_that_cannot_be_read_is_not_a_number(extract, video, monkeypatch):
    _, _, (expected,) = extract(video, rate=0.5)
    real = dense_features

    def damaged(*arguments):
        for number, (stretch, entry) in enumerate(real(*arguments)):
            yield stretch, (InputError(video, "damaged") if number in (0, 2) else entry)

    monkeypatch.setattr(long_videos, "dense_features", damaged)
    result, _, (array,) = extract(video, rate=0.5)
    assert result.failed == 0
    lost = np.isnan(array).all(1)
    assert array.shape == expected.shape
    assert lost[0]
    assert 0.3 < lost.mean() < 0.7
    np.testing.assert_array_equal(array[~lost], expected[~lost])
    assert np.isnan(array[lost]).all()
    monkeypatch.setattr(
        long_videos, "dense_features",
        lambda *given: ((s, InputError(video, "damaged")) for s, _ in real(*given)),
    )  # fmt: skip
    result, rows, _ = extract(video, rate=0.5)
    assert (result.failed, rows) == (1, [])


def test_one_bad_video_costs_one(extract, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    result, rows, _ = extract(broken, video, rate=0.5)
    assert (result.clips, result.failed) == (2, 1)
    assert result.failures[0].path == str(broken)
    assert [Path(row["path"]) for row in rows] == [video]


def test_what_makes_no_sense_is_refused(extract, video):
    with pytest.raises(UserError, match="Give one of them"):
        extract(video, rate=1.0, stride=2)
    with pytest.raises(UserError, match="parts of videos"):
        extract(Clip(video, start=1.0, end=3.0), rate=1.0)
    with pytest.raises(UserError, match="--sampling is for clips"):
        extract(video, rate=1.0, sampling="dense")
    result, rows, _ = extract(video, stride=10**9)
    assert (result.failed, rows) == (1, [])
    assert "less than one in 100 s" in result.failures[0].error
    with pytest.raises(UserError, match="sees windows"):
        extract(video, rate=1.0, backbone="r3d_18", layer=None, size=None)
