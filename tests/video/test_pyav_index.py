"""Only what the wanted pictures need is decoded, and the shortest way to them is taken."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from awkward import run
from reference import reference

from vidfuse.video import pyav_backend
from vidfuse.video.decoder import read_from
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pyav_backend import PyAVReader
from vidfuse.video.pyav_index import PICTURES_A_SEEK, Index
from vidfuse.video.pyav_stream import KeyFrame, VideoFile
from vidfuse.video.sampling import Timeline

LONG = "-f lavfi -i testsrc2=size=64x48:rate=25:duration=24 "
CODECS = {
    "h264.mp4": "-c:v libx264 -bf 3 -g 50 -pix_fmt yuv420p",
    "hevc.mkv": "-c:v libx265 -preset ultrafast "
    "-x265-params log-level=none:keyint=50:bframes=3:open-gop=0",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("long")


@pytest.fixture(params=CODECS)
def clip(request: pytest.FixtureRequest, folder: Path) -> Path:
    path = folder / request.param
    if not path.exists():
        run(LONG + CODECS[request.param], path)
    return path


def read(path: Path, frames: int) -> tuple[int, list[np.ndarray], np.ndarray]:
    """How many pictures were decoded for so many; and these."""
    with closing(PyAVReader(str(path))) as reader:
        found = read_from(reader, FrameRequest(str(path), "uniform", frames))
        assert not found.warnings
        return found.decoded, list(found.pictures), found.times


def test_key_frames_before_the_wanted_pictures_are_sought(clip: Path) -> None:
    """600 pictures, a key frame every 50."""
    for frames, most in ((1, 60), (4, 240), (16, 600)):
        decoded, pictures, times = read(clip, frames)
        assert frames <= decoded <= most
        assert not reference(str(clip)).problems(pictures, times)


def test_pictures_that_no_other_needs_are_left_out(clip: Path) -> None:
    decoded, _, _ = read(clip, 16)
    if clip.name == "vp9.webm":  # its decoder cannot
        assert decoded > 350
    else:
        assert decoded < 300


def test_asked_again_and_again_it_keeps_all(clip: Path) -> None:
    """As much is decoded in parts as the whole clip has, then the whole clip, once."""
    with closing(PyAVReader(str(clip))) as reader:
        times = reader.timeline.times
        reader.read(times[300:301])
        assert reader.decoded < 60
        for number in [100, 599, 0, *range(31, 600, 37)] * 3:
            pictures, _ = reader.read(times[number : number + 1])
            assert reader.decoded < 600 + 60 + 600
            assert not reference(str(clip)).problems(pictures, times[number : number + 1])
        assert reader.decoded >= 1200


def test_a_wrong_index_of_a_short_clip_is_found_out(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timeline is then the decoder's, and the pictures are chosen anew."""

    def wrong(file: VideoFile) -> Index | None:
        index = read_index(file)
        assert index is not None
        later = Timeline(index.timeline.times + 0.02, index.timeline.end + 5)
        return Index(later, index.stamps + 1, index.positions, index.keys, torn=False)

    expected = read(clip, 7)
    read_index = pyav_backend.read_index
    monkeypatch.setattr(pyav_backend, "read_index", wrong)
    decoded, pictures, times = read(clip, 7)
    if clip.name == "vp9.webm":  # nothing is left out, so each moment has its picture
        return
    assert decoded >= 600
    assert (times == expected[2]).all()
    assert (np.array(pictures) == np.array(expected[1])).all()


def test_pictures_that_take_more_than_the_file_says(folder: Path) -> None:
    """They are not kept, and the clip is read once more from the beginning."""
    run(LONG + "-frames:v 40 -c:v ffv1 -pix_fmt bgr0", path := folder / "colours.mkv")
    with closing(PyAVReader(str(path), keep_bytes=40 * 64 * 48 * 2)) as reader:
        assert reader._short  # by 1.5 bytes for each point
        found = read_from(reader, FrameRequest(str(path), "uniform", 4))
        assert reader._kept is None
        assert found.decoded <= 80
        assert not reference(str(path)).problems(list(found.pictures), found.times)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_damaged_packet_on_the_way(suffix: str, folder: Path) -> None:
    """The whole clip is decoded then, as a clip without an index is."""
    run(LONG + CODECS["h264.mp4"], path := folder / f"damaged.{suffix}")
    with closing(PyAVReader(str(path))) as reader:
        file = reader._file
        sizes = [(packet.pos, packet.size) for packet in file.packets() if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in sizes[300:306]:
        data[position + 5 : position + size] = bytes(size - 5)  # the type of it stays
    path.write_bytes(data)
    with closing(PyAVReader(str(path))) as reader:
        found = read_from(reader, FrameRequest(str(path), "uniform", 16))
    with closing(PyAVReader(str(path))) as whole:
        whole._file.indexed = False
        expected = read_from(whole, FrameRequest(str(path), "uniform", 16))
    assert (found.times == expected.times).all()
    assert (found.pictures == expected.pictures).all()
    assert found.warnings == expected.warnings != []


def test_parts() -> None:
    """Five groups of 20 pictures, the packets in the order of presentation."""
    times = np.arange(100) / 10
    keys = [KeyFrame(n * 2.0, n * 20, n * 20, n * 20) for n in range(5)]
    positions = np.arange(100)
    index = Index(Timeline(times, 10.0), positions, positions, keys, torn=False)

    def parts(*wanted: int) -> list[tuple[int, list[int]]]:
        found = index.parts(np.array(wanted))
        return [(key.position, pictures.tolist()) for key, pictures in found]

    assert parts(0) == [(0, [0])]
    assert parts(99) == [(80, [99])]
    assert parts(5, 7, 45, 59) == [(0, [5, 7]), (40, [45, 59])]
    near = 20 - PICTURES_A_SEEK
    assert parts(near, 25) == [(0, [near, 25])]  # decoding on is nearer than a seek
    assert parts(near - 1, 25) == [(0, [near - 1]), (20, [25])]
    assert parts(*range(0, 100, 9)) == [(0, list(range(0, 100, 9)))]
