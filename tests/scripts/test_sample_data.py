"""The sample data are complete, can be made again, and give no class away without motion."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import av
import numpy as np
import pytest

from vidfuse.data.annotated import read_annotated

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "sample_data"
LONG = FOLDER / "long"
PAIRS = (("left", "right"), ("approach", "recede"), ("clockwise", "counter-clockwise"))
THUMBNAIL = 12


class Row(NamedTuple):
    path: str
    label: str
    group: str


def decode(path: Path) -> np.ndarray:
    """All frames of a clip, uint8 [T, H, W, 3]."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_sample_data", ROOT / "scripts" / "make_sample_data.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    with (FOLDER / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [Row(**row) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def videos(rows: list[Row]) -> dict[str, np.ndarray]:
    return {row.path: decode(FOLDER / row.path) for row in rows}


@pytest.fixture(scope="module")
def thumbnails(videos: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Grey frames [T, THUMBNAIL, THUMBNAIL] of each clip, 0..1."""

    def shrink(video: np.ndarray) -> np.ndarray:
        frames, side = len(video), video.shape[1] // THUMBNAIL
        grey = video.mean(-1).reshape(frames, THUMBNAIL, side, THUMBNAIL, side)
        return grey.mean((2, 4)) / 255

    return {path: shrink(video) for path, video in videos.items()}


def test_manifest_lists_every_clip_and_is_small(rows: list[Row], script: ModuleType) -> None:
    clips = set(FOLDER.rglob("*.mp4")) - set(LONG.iterdir())
    on_disk = {path.relative_to(FOLDER).as_posix() for path in clips}
    assert [row.path for row in rows] == sorted({row.path for row in rows}, key=_order(rows))
    assert on_disk == {row.path for row in rows}
    assert sum(path.stat().st_size for path in clips) <= 3_000_000
    assert sum(path.stat().st_size for path in LONG.iterdir()) <= 2_000_000
    assert {row.label for row in rows} == set(script.CLASSES)
    assert script.PAIRS == PAIRS


def _order(rows: list[Row]) -> Callable[[str], int]:
    return [row.path for row in rows].index


def test_every_group_holds_every_class_equally_often(rows: list[Row]) -> None:
    counts = Counter((row.group, row.label) for row in rows)
    groups, labels = {row.group for row in rows}, {row.label for row in rows}
    assert len(groups) >= 8
    assert len(labels) >= 6
    assert len(counts) == len(groups) * len(labels)
    assert len(set(counts.values())) == 1


def test_size_and_length_say_nothing(rows: list[Row], videos: dict[str, np.ndarray]) -> None:
    assert {video.shape[1:] for video in videos.values()} == {(96, 96, 3)}
    lengths = defaultdict(list)
    for row in rows:
        lengths[row.group, row.label].append(len(videos[row.path]))
    for group in {row.group for row in rows}:
        assert len({tuple(sorted(n)) for (g, _), n in lengths.items() if g == group}) == 1
    assert all(25 <= length <= 50 for each in lengths.values() for length in each)
    assert len({length for each in lengths.values() for length in each}) > 5


def test_every_picture_is_a_key_frame(rows: list[Row]) -> None:
    for row in rows[::20]:
        with av.open(str(FOLDER / row.path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            assert all(packet.is_keyframe for packet in packets)


def test_no_two_clips_are_alike(rows: list[Row], thumbnails: dict[str, np.ndarray]) -> None:
    """Not played backwards either."""
    for first, second in PAIRS:
        for group in {row.group for row in rows}:
            one, other = (
                [thumbnails[row.path] for row in rows if (row.group, row.label) == (group, label)]
                for label in (first, second)
            )
            for a in one:
                for b in other:
                    if len(a) == len(b):
                        assert np.abs(a - b[::-1]).mean() > 0.005


def test_the_script_makes_the_committed_pictures(
    rows: list[Row], videos: dict[str, np.ndarray], script: ModuleType, tmp_path: Path
) -> None:
    some = {row.path for row in rows[::19]}
    assert script.generate(tmp_path, only=some) == [tuple(row) for row in rows]
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")} == some
    for path in some:
        made, committed = decode(tmp_path / path).astype(float), videos[path].astype(float)
        assert made.shape == committed.shape
        # Another encoder or numpy may round differently here and there.
        assert np.abs(made - committed).mean() < 1.0, path


def test_left_is_left_and_clockwise_is_clockwise(script: ModuleType) -> None:
    look = script.LOOKS["g01"]
    for seed in range(20):
        paths = {
            label: script.motion(label, look, 40, np.random.default_rng(seed))
            for label in script.CLASSES
        }
        steps = {
            label: np.median(np.diff([(s.x, s.y, s.radius) for s in states], axis=0), axis=0)
            for label, states in paths.items()
        }
        assert steps["left"][0] < 0 < steps["right"][0]
        assert steps["recede"][2] < 0 < steps["approach"][2]
        for label, sign in (("clockwise", 1), ("counter-clockwise", -1)):
            xy = np.array([(s.x, s.y) for s in paths[label]])
            first, second = np.diff(xy, axis=0)[:-1].T, np.diff(xy, axis=0)[1:].T
            # y points down, so clockwise turns have a positive cross product.
            assert (np.sign(first[0] * second[1] - first[1] * second[0]) == sign).all()


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
@pytest.mark.parametrize("index", [0, 7, 20, 39])
def test_states_at_any_frame_are_distributed_alike(
    script: ModuleType, pair: tuple[str, str], index: int
) -> None:
    """Kolmogorov-Smirnov distance of 4000 draws each; 0.043 is exceeded once in a thousand."""
    look = script.LOOKS["g03"]
    draws = []
    for number, label in enumerate(pair):
        rng = np.random.default_rng([number, index])
        states = [script.motion(label, look, 40, rng)[index] for _ in range(4000)]
        draws.append(np.array([(s.x, s.y, s.radius) for s in states]))
    for one, other in zip(draws[0].T, draws[1].T, strict=True):
        values = np.sort(np.concatenate((one, other)))
        shares = [np.searchsorted(np.sort(each), values, "right") / 4000 for each in (one, other)]
        assert np.abs(shares[0] - shares[1]).max() < 0.05


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_pictures_of_a_pair_have_the_same_moments(
    rows: list[Row], thumbnails: dict[str, np.ndarray], pair: tuple[str, str]
) -> None:
    """Differences within groups are small against their own standard errors."""
    groups = sorted({row.group for row in rows})
    y, x = np.mgrid[0:THUMBNAIL, 0:THUMBNAIL] / (THUMBNAIL - 1) - 0.5

    def moments(label: str, group: str) -> np.ndarray:
        of = [thumbnails[row.path] for row in rows if (row.label, row.group) == (label, group)]
        pixels = np.concatenate(of)
        # The shape is where a frame departs from the group's ground, lighter or darker.
        mass = np.abs(pixels - np.median(pixels, axis=(1, 2), keepdims=True))
        first, middle, last = (
            np.mean([each[index].mean() for each in of]) for index in (0, len(of[0]) // 2, -1)
        )
        return np.array(
            [
                *(pixels.mean(), pixels.std(), first, middle, last),
                *((mass * each).mean() for each in (1, x, y, x * x, y * y)),
            ]
        )

    gaps = np.array([moments(pair[0], group) - moments(pair[1], group) for group in groups])
    scores = gaps.mean(0) / (gaps.std(0, ddof=1) / np.sqrt(len(groups)))
    assert np.abs(scores).max() < 3.7  # 30 values in all; t with 8 degrees of freedom


def test_single_frames_do_not_tell_the_direction(
    rows: list[Row], thumbnails: dict[str, np.ndarray]
) -> None:
    """Ridge regression on the pixels of single frames, tested on groups held out in turn."""
    groups = sorted({row.group for row in rows})
    hits: dict[str, list[float]] = {"/".join(pair): [] for pair in PAIRS}
    for pair in PAIRS:
        of = [row for row in rows if row.label in pair]
        pixels = [thumbnails[row.path].reshape(-1, THUMBNAIL**2) for row in of]
        # Without each frame's mean and scale, the looks do not drown what is seen.
        pixels = [(p - p.mean(1, keepdims=True)) / p.std(1, keepdims=True) for p in pixels]
        # A shape may be lighter or darker than the ground.
        pixels = [np.concatenate((p, np.abs(p)), 1) for p in pixels]
        signs = [1.0 if row.label == pair[0] else -1.0 for row in of]
        for group in groups:
            kept = [i for i, row in enumerate(of) if row.group != group]
            inputs = np.concatenate([pixels[i] for i in kept])
            targets = np.concatenate([np.full(len(pixels[i]), signs[i]) for i in kept])
            centre = inputs.mean(0)
            inputs = inputs - centre
            gram = inputs.T @ inputs + 0.1 * len(inputs) * np.eye(inputs.shape[1])
            weights = np.linalg.solve(gram, inputs.T @ (targets - targets.mean()))
            for i in sorted(set(range(len(of))) - set(kept)):
                scores = (pixels[i] - centre) @ weights
                hits["/".join(pair)].append(float((np.sign(scores) == signs[i]).mean()))
    accuracies = {pair: np.mean(each) for pair, each in hits.items()}
    assert all(0.38 <= accuracy <= 0.62 for accuracy in accuracies.values()), accuracies


def test_long_videos_have_timelines_of_unseen_looks(script: ModuleType, rows: list[Row]) -> None:
    videos, problems = read_annotated(LONG / "timelines.csv")
    assert not problems
    assert {video.group for video in videos} == set(script.LONG_LOOKS)
    assert not {row.group for row in rows} & set(script.LONG_LOOKS)
    for number, video in enumerate(videos):
        rng = np.random.default_rng([0, len(script.LOOKS) + number])
        states, segments = script.long_motion(script.LONG_LOOKS[str(video.group)], rng)
        assert len(decode(video.path)) == len(states)
        expected = [(first / 25, end / 25, label) for first, end, label in segments]
        found = [(each.start, each.end, each.label) for each in video.segments]
        assert [each[2] for each in found] == [each[2] for each in expected]
        for one, other in zip(found, expected, strict=True):
            assert one[:2] == pytest.approx(other[:2], abs=0.005)
        # At rest nothing moves but the light and the camera's noise; in motion the shape does.
        first, end, _ = segments[0]
        assert states[first - 1] == states[0]
        assert len({*states[first:end]}) > 10
