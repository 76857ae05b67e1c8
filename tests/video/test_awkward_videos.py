"""Videos that are awkward to read: times, orders, geometry, pixel formats, damage."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from agreement import BackendProcess, disagreements, pool_disagreements, wrong_frame_times
from awkward import AWKWARD, H264, LARGER, PATTERN, SOUND, joined, make, run
from reference import COARSE_TOLERANCE, reference

from vidfuse.errors import InputError
from vidfuse.video.decoder import open_video, read_frames
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool
from vidfuse.video.pyav_backend import KEEP_BYTES, PyAVReader
from vidfuse.video.sampling import FrameTimes

PLAYABLE = [name for name, recipe in AWKWARD.items() if recipe.playable]
# All frames get the size of the first, with another filter than the ffmpeg program's.
RESIZED_TOLERANCE = 8.0
STRATEGIES = pytest.mark.parametrize("keep_bytes", [KEEP_BYTES, 0], ids=["kept", "seeks"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


def make_or_skip(name: str, folder: Path) -> Path:
    try:
        return make(name, folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this ffmpeg program cannot make {name}: {error.stderr[-200:]!r}")


@pytest.mark.parametrize("name", PLAYABLE)
def test_frames_are_right(name: str, folder: Path, decord_process: BackendProcess) -> None:
    path = make_or_skip(name, folder)
    assert len(reference(str(path)).times)
    with closing(open_video(str(path), "pyav")) as reader:
        assert not wrong_frame_times(path, reader.frame_times)
    with closing(PyAVReader(str(path), keep_bytes=0)) as reader:
        shown = len(reader.frame_times.times) - AWKWARD[name].missing
        assert not wrong_frame_times(path, FrameTimes(reader.frame_times.times[:shown], 1e9))
    assert not disagreements(path, None)
    assert not disagreements(path, 0)
    assert not decord_process.disagreements(path, COARSE_TOLERANCE)


# What torchcodec may refuse. Of open groups only the last frames fail, which depends on FFmpeg.
REFUSED_BY_TORCHCODEC = {
    "accelerating.webm", "simultaneous.mkv",  # two frames at one time
    "b_frames.avi", "packed.avi", "mpeg4.avi", "no_tail.avi",  # B-frames in AVI
    "b_frames.flv", "mpeg2.mpg", "intra_refresh.mp4",
    "open_groups.mp4", "open_groups.mkv", "open_groups.ts",
    "mirrored.mp4", "turned_mirrored.mp4",
    "no_head.ts", "no_tail.mp4",
}  # fmt: skip


@pytest.mark.parametrize("name", PLAYABLE)
def test_torchcodec_is_right_or_refuses(
    name: str, folder: Path, torchcodec_process: BackendProcess
) -> None:
    path = make_or_skip(name, folder)
    may_refuse = name in REFUSED_BY_TORCHCODEC
    assert not torchcodec_process.disagreements(path, COARSE_TOLERANCE, may_refuse)


@pytest.mark.parametrize("second", [LARGER, PATTERN])
def test_torchcodec_refuses_joined_recordings(
    second: str, tmp_path: Path, torchcodec_process: BackendProcess
) -> None:
    path = joined(tmp_path, PATTERN + H264, second + H264)
    wrong = torchcodec_process.disagreements(path, COARSE_TOLERANCE, may_refuse=False)
    assert any("refused" in text for text in wrong)


def test_seeks_are_used(folder: Path) -> None:
    for name in ("open_groups.mp4", "open_groups.mkv", "open_groups.ts", "edit_list.mkv"):
        with closing(PyAVReader(str(make_or_skip(name, folder)), keep_bytes=0)) as reader:
            times = reader.frame_times.times
            reader.read(times[-1:])
            assert reader.decoded < len(times) / 2, name
            reader.read(times)
            assert not reader.warnings


@pytest.mark.parametrize("name", [name for name in AWKWARD if name not in PLAYABLE])
def test_what_holds_no_frame_is_refused(name: str, folder: Path, pool: DecodePool) -> None:
    path = make_or_skip(name, folder)
    with pytest.raises(InputError, match=r"no video in it|not a video"):
        read_frames(FrameRequest(str(path), "uniform", 4), "pyav")
    with pytest.raises(InputError, match=r"no video in it|not a video"):
        pool.submit(FrameRequest(str(path), "uniform", 4)).result()


@pytest.mark.parametrize("suffix", ["mp3", "mp4"])
def test_cover_frame_is_no_video(suffix: str, folder: Path) -> None:
    run(PATTERN + "-frames:v 1", cover := folder / "cover.png")
    arguments = f"{SOUND}-i {cover} -map 0 -map 1 -c:v png -disposition:v attached_pic"
    run(arguments, path := folder / f"cover.{suffix}")
    with pytest.raises(InputError, match="only sound with a cover frame"):
        open_video(str(path), "pyav")


@pytest.mark.parametrize("content", [bytes(100_000), b"just a text\n", b"\xff" * 5000])
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a video"):
        open_video(str(path), "pyav")


@STRATEGIES
@pytest.mark.parametrize("second", [LARGER, "-itsoffset 7 " + LARGER, PATTERN])
def test_recordings_joined_in_one_file(keep_bytes: int, second: str, tmp_path: Path) -> None:
    """What comes after the join is shown after what came before it, whatever its time stamps."""
    path = joined(tmp_path, PATTERN + H264, second + H264)
    expected = reference(str(path))
    if "itsoffset" in second:  # not a step back: the gap stays
        assert expected.times[50] == pytest.approx(7)
    assert len(expected.times) in (75, 100)
    with closing(PyAVReader(str(path), keep_bytes=keep_bytes)) as reader:
        assert not wrong_frame_times(path, reader.frame_times)
    frames = read_frames(FrameRequest(str(path), "stride:1", 200), "pyav")
    assert not expected.problems(frames.pixels, frames.times, expected.times, RESIZED_TOLERANCE)


@STRATEGIES
def test_sound_before_the_frame_in_a_transport_stream(keep_bytes: int, tmp_path: Path) -> None:
    """Time counts from the start of the file, sound included (the ffmpeg program ignores it)."""
    run(f"-itsoffset 0.5 {PATTERN}{SOUND}{H264}", path := tmp_path / "clip.ts")
    expected = reference(str(path))
    with closing(PyAVReader(str(path), keep_bytes=keep_bytes)) as reader:
        pixels, times = reader.read(reader.frame_times.times)
    late = times[0]
    assert late == pytest.approx(0.5, abs=0.1)
    assert not expected.problems(pixels, times - late, expected.times)


@pytest.fixture(scope="module")
def hour(folder: Path) -> Path:
    """3600 frames, one a second, with a key frame every ten."""
    arguments = "-f lavfi -i testsrc=size=64x64:rate=1:duration=3600 -g 10 -bf 2 -c:v mpeg4"
    run(arguments, path := folder / "hour.mp4")
    return path


def test_an_hour_is_read_through_its_index(hour: Path) -> None:
    with closing(PyAVReader(str(hour), keep_bytes=0)) as reader:
        wanted = reader.frame_times.times[112::225]
        pixels, times = reader.read(wanted)
        assert reader.decoded <= 16 * 12, "from the key frames before them, and not all 3600"
    assert len(times) == 16
    assert not reference(str(hour)).problems(pixels, times, wanted, COARSE_TOLERANCE)


def test_segments_of_an_hour(hour: Path, pool: DecodePool) -> None:
    expected = reference(str(hour))
    frames = pool.submit(FrameRequest(str(hour), "uniform", 4, start=3000, end=3008)).result()
    assert frames.times.tolist() == [3001, 3003, 3005, 3007]
    assert (frames.start, frames.end, frames.count) == (3000, 3008, 8)
    assert not expected.problems(frames.pixels, frames.times, None, COARSE_TOLERANCE)
    with pytest.raises(InputError, match="no frame between 4000 s and the end"):
        pool.submit(FrameRequest(str(hour), "uniform", 4, start=4000)).result()


def test_a_header_that_states_a_huge_frame(folder: Path) -> None:
    path = folder / "huge.avi"
    run(PATTERN + "-c:v rawvideo -pix_fmt bgr24 -frames:v 1", path)
    data = path.read_bytes()
    at = data.index(b"strf") + 12  # width and height of the bitmap header
    path.write_bytes(data[:at] + np.array([60000, 60000], "<i4").tobytes() + data[at + 8 :])
    with pytest.raises(InputError, match=r"60000x60000|can be decoded|not a video"):
        read_frames(FrameRequest(str(path), "uniform", 1), "pyav")


@pytest.mark.parametrize("name", ["open_groups.mkv", "b_frames.avi", "turned_90.mp4"])
def test_in_decode_processes(name: str, folder: Path, pool: DecodePool) -> None:
    assert not pool_disagreements(pool, make_or_skip(name, folder))


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(60):
            image = noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    torn = tmp_path / "torn.avi"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    with closing(PyAVReader(str(torn))) as reader:
        found = len(reader.frame_times.times)
        assert 0 < found < 40
        assert f"{found / 10:.1f} of the 6.0 s that it declares" in " ".join(reader.warnings)
    with closing(PyAVReader(str(whole))) as reader:
        assert len(reader.frame_times.times) == 60
        assert reader.warnings == []
