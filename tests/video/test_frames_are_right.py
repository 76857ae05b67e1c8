"""Every frame is the one that the ffmpeg program shows at that time.

For every clip at hand: first, last, single, two far apart, 16 spread, dense and all frames, with a
fresh reader and a reused one, in each way that vidfuse reads videos.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from agreement import BackendProcess, disagreements, pool_disagreements, wrong_frame_times
from reference import COARSE_TOLERANCE, TOLERANCE, data_folder, reference

from vidfuse.video.decoder import read_from
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool
from vidfuse.video.pyav_backend import KEEP_BYTES, PyAVReader
from vidfuse.video.sampling import FrameTimes

SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}
DATA = data_folder()
CLIPS = [
    path
    for folder in ("real_clips", "ut_interaction", "odd_videos")
    for path in sorted((DATA / folder).rglob("*") if DATA else [])
    if path.suffix in SUFFIXES
]
# Conversions of 10-bit and 12-bit 4:2:0, and of chroma for an odd width and height, differ more.
COARSE = {
    "bt2020_10bit.mp4",
    "h265_10bits.mp4",
    "testsrc2_12bit_hdr.mp4",
    "testsrc2_odd_height_and_width_mpeg2.mp4",
}
# Its packet at 3.0 s is damaged: the container's index lists a frame that nothing can decode.
DAMAGED = {"corrupted.mp4": 3.0}
# What decord and torchcodec may refuse, besides the clips of ut_interaction: they start late, and
# torchcodec reads no AVI with B-frames.
REFUSED_BY_DECORD = {
    "nasa_13013_rotated.mp4",
    "video_90.mov",
    "corrupted.mp4",
    "discard_first_keyframe.mp4",
    "testsrc2_av1_10bit.mp4",
    "v_ApplyEyeMakeup_g01_c01.avi",
    "v_BaseballPitch_g01_c03.avi",
}
REFUSED_BY_TORCHCODEC = {
    "corrupted.mp4",
    "v_ApplyEyeMakeup_g01_c01.avi",
    "v_BaseballPitch_g01_c03.avi",
}


@pytest.fixture(
    scope="module", params=CLIPS or [None], ids=[path.name for path in CLIPS] or ["none"]
)
def clip(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("VIDFUSE_TEST_DATA names no folder with real_clips, ut_interaction, odd_videos")
    return request.param


def tolerance(clip: Path) -> float:
    return COARSE_TOLERANCE if clip.name in COARSE else TOLERANCE


@pytest.mark.skipif(DATA is None, reason="VIDFUSE_TEST_DATA names no folder")
def test_all_clips_are_there() -> None:
    folders = [path.relative_to(DATA).parts[0] for path in CLIPS]
    counts = {folder: folders.count(folder) for folder in folders}
    assert counts == {"real_clips": 16, "ut_interaction": 60, "odd_videos": 23}


def test_as_it_comes(clip: Path) -> None:
    with closing(PyAVReader(str(clip))) as reader:
        if clip.name in DAMAGED:  # found on the way
            reader.read(reader.frame_times.times)
        assert not wrong_frame_times(clip, reader.frame_times)
    assert not disagreements(clip, None, tolerance(clip))


def test_decoded_once_and_kept(clip: Path) -> None:
    """What is decoded of a clip makes no difference to its frames, not even in the last bit."""
    for sampling, frames in (("uniform", 1), ("uniform", 16), ("dense", 8), ("stride:5", 99)):
        request = FrameRequest(str(clip), sampling, frames)
        with (
            closing(PyAVReader(str(clip))) as reader,
            closing(PyAVReader(str(clip), again=True)) as whole,
        ):
            found = read_from(reader, request)
            expected = read_from(whole, request)
            assert whole.decoded == len(whole.frame_times.times)
        assert (found.times == expected.times).all()
        assert (found.pixels == expected.pixels).all()
        # A damaged frame that nothing else needs is not looked at, unless the clip is decoded as
        # a whole, as by versions of PyAV that cannot tell interlaced streams.
        part = found.decoded < expected.decoded
        unseen = int(clip.name in DAMAGED and frames == 1 and part)
        assert found.count - expected.count == unseen
        assert (found.start, found.end) == (expected.start, expected.end)
        assert found.decoded <= expected.decoded or clip.name in DAMAGED


def test_through_the_index_with_seeks(clip: Path) -> None:
    with closing(PyAVReader(str(clip), keep_bytes=0)) as reader:
        listed = reader.frame_times
    if clip.name in DAMAGED:
        shown = abs(listed.times - DAMAGED[clip.name]) > 0.01
        assert (~shown).sum() == 1
        listed = FrameTimes(listed.times[shown], listed.end)
    assert not wrong_frame_times(clip, listed)
    assert not disagreements(clip, 0, tolerance(clip))


def test_auto_in_a_decode_process(clip: Path, pool: DecodePool) -> None:
    assert not pool_disagreements(pool, clip, tolerance(clip))


def test_decord_is_right_or_refuses(clip: Path, decord_process: BackendProcess) -> None:
    may_refuse = clip.name in REFUSED_BY_DECORD or clip.parts[-3] == "ut_interaction"
    assert not decord_process.disagreements(clip, tolerance(clip), may_refuse)


def test_torchcodec_is_right_or_refuses(clip: Path, torchcodec_process: BackendProcess) -> None:
    may_refuse = clip.name in REFUSED_BY_TORCHCODEC or clip.parts[-3] == "ut_interaction"
    assert not torchcodec_process.disagreements(clip, tolerance(clip), may_refuse)


def test_damaged_packet_leaves_the_frame_before_it_on_screen() -> None:
    if DATA is None:
        pytest.skip("VIDFUSE_TEST_DATA names no folder")
    path = DATA / "odd_videos" / "corrupted.mp4"
    moment = np.array([DAMAGED[path.name]])
    for keep_bytes in (KEEP_BYTES, 0):
        with closing(PyAVReader(str(path), keep_bytes=keep_bytes)) as reader:
            pixels, times = reader.read(moment)
            assert any("damaged" in warning for warning in reader.warnings)
        assert times[0] == pytest.approx(2.9)
        assert not reference(str(path)).problems(pixels, times)
