"""How frames become a network's input, and how frames travel between processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vidfuse.data.content import Stamp
from vidfuse.video import CROPS, Crop
from vidfuse.video.frames import Fitter, Frames, square
from vidfuse.video.pool import frames_of

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stripes(height: int, width: int) -> np.ndarray:
    """Red, green and blue thirds along the longer side."""
    image = np.zeros((height, width, 3), np.uint8)
    long = image if height > width else image.transpose(1, 0, 2)
    third = max(height, width) // 3
    long[:third], long[third : 2 * third], long[2 * third :] = RED, GREEN, BLUE
    return image


@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_center_keeps_the_middle(shape: tuple[int, int]) -> None:
    got = square(stripes(*shape), 10, "center")
    assert (got[2:-2, 2:-2] == GREEN).all()
    assert (abs(got.astype(int) - GREEN) < 64).all()  # the filter reaches over the edge


@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_pad_keeps_everything_between_bars(shape: tuple[int, int]) -> None:
    got = square(stripes(*shape), 9, "pad")
    lying = got if shape[1] > shape[0] else got.transpose(1, 0, 2)
    assert not lying[:3].any()
    assert not lying[6:].any()
    assert lying[4, [1, 4, 7]].tolist() == [list(RED), list(GREEN), list(BLUE)]


@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_squash_fills_the_square(shape: tuple[int, int]) -> None:
    got = square(stripes(*shape), 9, "squash")
    lying = got if shape[1] > shape[0] else got.transpose(1, 0, 2)
    assert lying[4, [1, 4, 7]].tolist() == [list(RED), list(GREEN), list(BLUE)]
    assert lying[0].any()
    assert lying[8].any()


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 5), (33, 32), (32, 32)])
def test_any_shape_becomes_a_square(crop: Crop, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 7, np.uint8)
    got = square(image, 32, crop)
    assert got.shape == (32, 32, 3)
    assert got.dtype == np.uint8
    assert got.max() == 7


def test_a_frame_of_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for crop in CROPS:
        assert (square(image, 8, crop) == image).all()


def test_resizing_is_antialiased() -> None:
    """A fine checkerboard becomes grey, not black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    got = square(np.repeat(board[..., None], 3, 2), 16, "center")
    assert abs(got[2:-2, 2:-2].astype(int) - 128).max() < 16


def test_a_change_of_size_midway_follows_the_first_frame() -> None:
    small, large = np.zeros((4, 6, 3), np.uint8), np.full((8, 12, 3), 9, np.uint8)
    for size, frames, shape in (
        (None, [small, large], (2, 4, 6, 3)),
        (None, [large, small], (2, 8, 12, 3)),
        (5, [small, large], (2, 5, 5, 3)),
    ):
        fit = Fitter(size, "pad")
        assert fit.stack([fit(frame) for frame in frames]).shape == shape
        assert (fit.height, fit.width) == frames[0].shape[:2]


def test_frames_travel_as_json_and_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    times = np.array([0.1, 1 / 3])
    frames = Frames(pixels, times, 0.1, 0.5, 9, 40, 30, "pyav", ["odd"], stamp=Stamp(1, 2, 3, 4))
    header = json.loads(json.dumps(frames.header()))
    again = frames_of(header, pixels.tobytes())
    assert (again.pixels == pixels).all()
    assert again.times.tolist() == times.tolist()
    assert again.header() == frames.header()
