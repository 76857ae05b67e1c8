"""Random views of a clip: what they show, and that they are the same everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidfuse.video import CROPS, Crop
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import Fitter, FrameRequest, square
from vidfuse.video.pool import DecodePool
from vidfuse.video.view import RANGES, View

KEY = "0123456789abcdef" * 2
OTHER = "f" * 32
PLAIN = View(
    scale=1, aspect=1, x=0.5, y=0.5, brightness=1, contrast=1, saturation=1, flip=False
)  # fmt: skip
DRAWN = [View.draw(KEY, number) for number in range(1, 501)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def flat(*colour: int) -> np.ndarray:
    return np.full((8, 8, 3), colour, np.uint8)


def inside(image: np.ndarray) -> np.ndarray:
    """What the filter, which reaches over the edge of a part, makes of that part alone."""
    return image[2:-2, 2:-2]


def test_views_are_the_same_in_two_processes() -> None:
    script = (
        "import json; from vidfuse.video.view import View; "
        f"print(json.dumps([View.draw('{KEY}', n).to_dict() for n in range(1, 9)]))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [view.to_dict() for view in DRAWN[:8]]


def test_each_clip_and_number_has_a_view_of_its_own() -> None:
    assert len({*DRAWN, *(View.draw(OTHER, number) for number in range(1, 501))}) == 1000


def test_all_of_the_ranges_is_drawn_and_nothing_beyond() -> None:
    for name, (least, most) in RANGES.items():
        values = np.array([getattr(view, name) for view in DRAWN])
        assert least <= values.min() < least + 0.02 * (most - least)
        assert most - 0.02 * (most - least) < values.max() <= most
    assert 0.4 < np.mean([view.flip for view in DRAWN]) < 0.6


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (32, 32), (2, 90), (16, 16)])
def test_a_view_that_changes_nothing_is_the_plain_frame(
    crop: Crop, interpolation: Any, shape: tuple[int, int]
) -> None:
    image = noise(*shape)
    assert np.array_equal(
        square(image, 16, crop, interpolation, view=PLAIN), square(image, 16, crop, interpolation)
    )


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(30, 50), (51, 31), (1, 90)])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_any_view_of_any_frame_is_a_square(
    crop: Crop, shape: tuple[int, int], fraction: float
) -> None:
    image = noise(*shape)
    plain = (3.5, 7.0, 40.25, 19.0)
    for view in [*DRAWN[:100], replace(PLAIN, x=1, y=1, scale=0.6), replace(PLAIN, aspect=1.1)]:
        got = square(image, 16, crop, "bilinear", fraction, view)
        assert got.shape == (16, 16, 3)
        left, top, right, bottom = view.crop(plain)
        assert plain[0] <= left < right <= plain[2]
        assert plain[1] <= top < bottom <= plain[3]


@pytest.mark.parametrize(
    ("crop", "x", "y", "box"),
    [
        ("center", 0, 0, (20, 0, 40, 20)),
        ("center", 1, 1, (40, 20, 60, 40)),
        ("center", 0.5, 0.5, (30, 10, 50, 30)),
        ("squash", 0, 0, (0, 0, 40, 20)),
        ("squash", 1, 1, (40, 20, 80, 40)),
    ],
)
def test_the_part_that_is_shown(crop: Crop, x: float, y: float, box: tuple[int, ...]) -> None:
    """Half of the sides of what the plain frame shows, anywhere in it."""
    image = noise(40, 80)
    left, top, right, bottom = box
    part = np.ascontiguousarray(image[top:bottom, left:right])
    got = square(image, 20, crop, view=replace(PLAIN, scale=0.5, x=x, y=y))
    assert np.array_equal(inside(got), inside(square(part, 20, "squash")))


def test_a_padded_view_keeps_its_shape_between_black_bars() -> None:
    view = replace(PLAIN, scale=0.5, x=0, y=1, brightness=1.3, contrast=0.5)
    got = square(np.full((40, 80, 3), 100, np.uint8), 20, "pad", view=view)
    assert not got[:5].any()
    assert not got[15:].any()
    assert (got[5:15] == round((130 - 127.5) * 0.5 + 127.5)).all()


def test_the_share_of_the_short_side_is_what_the_view_keeps_a_part_of() -> None:
    image = noise(40, 80)
    got = square(image, 20, "center", "bilinear", 0.5, replace(PLAIN, scale=0.5, x=0, y=0))
    part = np.ascontiguousarray(image[10:20, 30:40])
    assert np.array_equal(inside(got), inside(square(part, 20, "squash")))


@pytest.mark.parametrize(
    ("changes", "colour", "expected"),
    [
        ({"brightness": 0.5}, (200, 100, 50), (100, 50, 25)),
        ({"brightness": 1.3}, (220, 100, 0), (255, 130, 0)),
        ({"contrast": 1.2}, (200, 100, 50), (214, 94, 34)),
        ({"contrast": 0.7}, (255, 0, 128), (217, 38, 128)),
        ({"saturation": 0}, (255, 0, 0), (76, 76, 76)),
        ({"saturation": 1.4}, (90, 90, 90), (90, 90, 90)),
        ({"saturation": 1.4}, (100, 50, 50), (114, 44, 44)),
    ],
)
def test_colours(
    changes: dict[str, Any], colour: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    got = square(flat(*colour), 4, "center", view=replace(PLAIN, **changes))
    assert (abs(got.astype(int) - expected) <= 1).all()


def test_all_frames_of_a_clip_are_shown_the_same_way() -> None:
    fit = Fitter(16, view=DRAWN[0])
    image = noise(30, 50)
    assert np.array_equal(fit(image), fit(image))
    mirrored = Fitter(16, mirrored=True, view=DRAWN[0])
    assert np.array_equal(mirrored(image), fit(image)[:, ::-1])


def test_a_request_travels_to_a_decode_process(make_clip: Any) -> None:
    plain = FrameRequest(str(make_clip()), "uniform", 3, size=24, only=(0, 2))
    request = replace(plain, view=DRAWN[1], mirrored=True)
    travelled = FrameRequest.from_dict(json.loads(json.dumps(asdict(request))))
    assert travelled == replace(request, only=[0, 2])  # type: ignore[arg-type]
    with DecodePool(workers=1) as pool:
        there = pool.submit(request).result().pixels
        without = pool.submit(plain).result().pixels
    assert np.array_equal(there, read_frames(request, "pyav").pixels)
    assert there.shape == without.shape
    assert not np.array_equal(there, without)
