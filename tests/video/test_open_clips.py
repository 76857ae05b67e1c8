"""Clips that stay open between looks, and requests for some of the frames that a rule chooses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidfuse.errors import InputError
from vidfuse.video.decoder import read_frames, read_from
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.pyav_backend import PyAVReader


def request(path: object, *only: int, frames: int = 6) -> FrameRequest:
    return FrameRequest(str(path), "uniform", frames, size=32, only=only)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8, 3), i * 10, np.uint8)).save(folder / f"{i:02}.png")
    return folder


def same(one: Frames, other: Frames, numbers: tuple[int, ...]) -> bool:
    chosen = list(numbers)
    return np.array_equal(one.pixels, other.pixels[chosen]) and np.array_equal(
        one.times, other.times[chosen]
    )


def test_some_of_the_chosen_frames(make_clip: Any) -> None:
    path = make_clip(frames=15)
    everything = read_frames(FrameRequest(str(path), "uniform", 6, size=32), "pyav")
    assert (everything.candidates, everything.decoded) == (6, 15)
    for only in ((0,), (5,), (1, 4), (2, 3, 5)):
        assert same(read_frames(request(path, *only), "pyav"), everything, only)
    none = read_frames(request(path), "pyav")
    assert none.pixels.shape == (0, 32, 32, 3)
    assert (none.candidates, none.count, none.width) == (6, 15, 0)
    short = read_frames(request(make_clip("short.mkv", frames=4)), "pyav")
    assert short.candidates == 4


def test_of_frames_only_those_asked_for_are_opened(pixels: Path) -> None:
    assert read_frames(request(pixels), "images").decoded == 0
    frames = read_frames(request(pixels, 2, 4), "images")
    assert frames.decoded == 2


def test_of_a_long_video_only_a_part_is_decoded(tmp_path: Path) -> None:
    """One whose frames do not fit the memory for them, so that it is sought in."""
    import av

    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 32, 32, "yuv420p", 10
        for i in range(200):
            image = np.full((32, 32, 3), i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    reader = PyAVReader(str(path), keep_bytes=0)
    counts = [read_from(reader, request(path, number)).decoded for number in (0, 3, 5)]
    assert all(0 < count < 40 for count in counts)
    assert reader.decoded == sum(counts)
    reader.close()


def test_a_clip_stays_open_until_another_is_asked_for(make_clip: Any) -> None:
    first, second = make_clip("1.mkv", seed=1), make_clip("2.mkv", seed=2)
    expected = [
        read_frames(FrameRequest(str(path), "uniform", 6, size=32), "pyav")
        for path in (first, second)
    ]
    with OpenClips("pyav", workers=2) as files:
        opened = files.read_at({0: request(first), 1: request(second)})
        assert all(isinstance(each, Frames) and each.candidates == 6 for each in opened.values())
        assert len(files.running) == 2
        found = files.read_at({1: request(second, 4), 0: request(first, 3)})
        for place, number in ((0, 3), (1, 4)):
            answer = found[place]
            assert isinstance(answer, Frames)
            assert same(answer, expected[place], (number,))
            assert answer.decoded == 0, "it was decoded once already"
        # Nothing is opened again: not even a file that is not there any more.
        first.write_bytes(b"gone")
        again = files.read_at({0: request(first, 1)})[0]
        assert isinstance(again, Frames)
        assert same(again, expected[0], (1,))
        files.read_at({0: request(second, 1)})
        assert isinstance(files.read_at({0: request(first, 1)})[0], InputError)


def test_what_is_released_is_closed_and_the_process_stays(make_clip: Any) -> None:
    path = make_clip()
    with OpenClips("pyav", workers=1) as files:
        files.read_at({0: request(path)})
        (process,) = files.running
        files.release()
        path.write_bytes(b"gone")
        assert isinstance(files.read_at({0: request(path, 1)})[0], InputError)
        assert files.running == {process}


def test_one_that_fails_does_not_hold_up_the_others(make_clip: Any, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    good, bad = make_clip(), tmp_path / "text.mp4"
    with OpenClips("pyav", workers=2) as files:
        answers = files.read_at({0: request(bad, 0), 1: request(good, 0)})
        assert isinstance(answers[0], InputError)
        assert isinstance(answers[1], Frames)
        assert isinstance(files.read_at({0: request(good, 2)})[0], Frames)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_process_that_dies_between_looks_is_replaced(make_clip: Any) -> None:
    path = make_clip()
    with OpenClips("pyav", workers=1) as files:
        before = files.read_at({0: request(path, 1)})[0]
        (process,) = files.running
        process.process.kill()
        process.process.wait()
        after = files.read_at({0: request(path, 1)})[0]
        assert isinstance(before, Frames)
        assert isinstance(after, Frames)
        assert np.array_equal(before.pixels, after.pixels)
