"""Only what the wanted frames need is decoded, and the shortest way to them is taken."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from awkward import PATTERN, run
from reference import reference

from vidfuse.video import pyav_backend
from vidfuse.video.decoder import read_from
from vidfuse.video.frames import FrameRequest, Pixels
from vidfuse.video.pyav_backend import PyAVReader
from vidfuse.video.pyav_index import FRAMES_A_SEEK, Index, _is_random_access, read_index
from vidfuse.video.pyav_stream import KeyFrame, VideoFile
from vidfuse.video.sampling import FrameTimes, Times

pytestmark = pytest.mark.skipif(
    not hasattr(av.VideoCodecContext, "field_order"),
    reason="this version of PyAV cannot tell interlaced streams, so clips are decoded as a whole",
)
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
    """How many frames were decoded for so many; and these."""
    with closing(PyAVReader(str(path))) as reader:
        found = read_from(reader, FrameRequest(str(path), "uniform", frames))
        assert not found.warnings
        return found.decoded, list(found.pixels), found.times


def test_key_frames_before_the_wanted_frames_are_sought(clip: Path) -> None:
    """600 frames, a key frame every 50."""
    for frames, most in ((1, 60), (4, 240), (8, 480)):
        decoded, pixels, times = read(clip, frames)
        assert frames <= decoded <= most
        assert not reference(str(clip)).problems(pixels, times)


def test_frames_that_no_other_needs_are_left_out(clip: Path) -> None:
    decoded, _, _ = read(clip, 16)
    if clip.name.startswith("h264"):
        assert decoded < 300
    else:
        assert decoded > 350


def test_only_whole_packets_without_references_are_left_out(folder: Path) -> None:
    """A packet that is damaged goes to the decoder, which notices."""
    run(LONG + "-frames:v 40 -c:v libx264 -g 40 -bf 3", path := folder / "b-frames.mp4")
    with closing(VideoFile(str(path))) as file:
        packets = [packet for packet in file.packets() if packet.size]
        spare = next(bytes(packet) for packet in packets if file._is_spare(packet))
        needed = next(bytes(packet) for packet in packets[1:] if not file._is_spare(packet))
        assert file._is_spare(Packet(spare))
        damaged = (
            bytes(40),
            spare[:-1],
            b"\xff" * 40,
            b"\0",
            spare + bytes(8),
            spare + needed,
            needed + spare,
        )
        for data in damaged:
            assert not file._is_spare(Packet(data)), data
        assert file._is_spare(Packet(spare)), "damage does not stay in the filter"


def test_asked_again_and_again_it_keeps_all(clip: Path) -> None:
    """A clip that stays open is decoded once, and its frame times stay what they were."""
    with closing(PyAVReader(str(clip), again=True)) as reader:
        frame_times = reader.frame_times
        for number in [300, 100, 599, 0, *range(31, 600, 37)]:
            pixels, _ = reader.read(frame_times.times[number : number + 1])
            assert not reference(str(clip)).problems(pixels, frame_times.times[number : number + 1])
        assert reader.decoded == 600
        assert reader.frame_times is frame_times


def test_a_wrong_index_of_a_short_clip_is_found_out(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frame times are then the decoder's, and the frames are chosen anew."""

    def wrong(file: VideoFile) -> Index | None:
        index = read_index(file)
        assert index is not None
        later = FrameTimes(index.frame_times.times + 0.02, index.frame_times.end + 5)
        return Index(later, index.stamps + 1, index.positions, index.keys, doubtful=False)

    expected = read(clip, 7)
    monkeypatch.setattr(pyav_backend, "read_index", wrong)
    decoded, pixels, times = read(clip, 7)
    assert decoded >= 600
    assert (times == expected[2]).all()
    assert (np.array(pixels) == np.array(expected[1])).all()


def test_frames_that_take_more_than_the_file_says(folder: Path) -> None:
    """By 1.5 bytes for each point. They are not kept, and the clip is read once more."""
    run(LONG + "-frames:v 40 -c:v ffv1 -pix_fmt bgr0", path := folder / "colours.mkv")
    with closing(PyAVReader(str(path), keep_bytes=40 * 64 * 48 * 2)) as reader:
        found = read_from(reader, FrameRequest(str(path), "uniform", 4))
        assert 40 < found.decoded <= 80
        assert not reference(str(path)).problems(list(found.pixels), found.times)


@pytest.mark.parametrize("type_stays", [False, True])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_damaged_packet_on_the_way(suffix: str, type_stays: bool, folder: Path) -> None:
    """The whole clip is decoded then, as a clip without an index is."""
    run(LONG + CODECS["h264.mp4"], path := folder / f"damaged.{suffix}")
    damage(path, 300, 301, type_stays)
    with closing(PyAVReader(str(path))) as reader:
        found = read_from(reader, FrameRequest(str(path), "uniform", 16))
    with closing(PyAVReader(str(path), again=True)) as whole:
        expected = read_from(whole, FrameRequest(str(path), "uniform", 16))
    assert (found.times == expected.times).all()
    assert (found.pixels == expected.pixels).all()
    assert found.count == expected.count == 599
    assert found.warnings == expected.warnings != []


def test_damage_in_a_long_clip_is_read_past(folder: Path) -> None:
    """One bad frame does not have hours decoded from the beginning."""
    run(LONG + CODECS["h264.mp4"], path := folder / "long.mp4")
    damage(path, 306, 307, type_stays=True)
    with closing(PyAVReader(str(path), keep_bytes=0)) as reader:
        for number in (306, 307, 320, 550):
            before = reader.decoded
            reader.read(reader.frame_times.times[number : number + 1])
            assert reader.decoded - before < 100
        assert not any("from the beginning" in text for text in reader.warnings)


def damage(path: Path, first: int, last: int, type_stays: bool) -> None:
    """Overwrite packets of a file with zeros, but for the length of their first unit."""
    with closing(VideoFile(str(path))) as file:
        places = [(each.pos or 0, each.size) for each in file.packets() if each.size]
    data = bytearray(path.read_bytes())
    for position, size in places[first:last]:
        start = position + (5 if type_stays else 4)
        data[start : position + size] = bytes(position + size - start)
    path.write_bytes(data)


def test_a_decoder_that_is_set_up_anew_on_the_way(folder: Path) -> None:
    """Two encodings in one track, as joining files without encoding makes them."""
    parts = []
    for number, quality in enumerate((12, 40)):
        text = f"{PATTERN}-c:v libx264 -g 10 -bf 2 -qp {quality} -pix_fmt yuv420p"
        run(text, part := folder / f"part{number}.mp4")
        parts.append(part)
    listed = folder / "parts.txt"
    listed.write_text("".join(f"file '{part}'\n" for part in parts))
    run(f"-f concat -safe 0 -i {listed} -c copy -tag:v avc1", path := folder / "joined.mp4")
    for frames in (1, 4, 16):
        with closing(PyAVReader(str(path))) as reader:
            found = read_from(reader, FrameRequest(str(path), "uniform", frames))
        assert not reference(str(path)).problems(list(found.pixels), found.times)


def test_recordings_that_overlap(folder: Path) -> None:
    """Packets copied from around key frames of open groups: some times come twice."""
    source = folder / "open.mp4"
    codec = "-c:v libx264 -g 24 -bf 3 -pix_fmt yuv420p -x264-params open_gop=1"
    run(LONG + codec, source)
    listed = folder / "cuts.txt"
    cuts = ((5.1, 9.3), (13.3, 17.0))
    texts = [f"file '{source}'\ninpoint {begin}\noutpoint {end}\n" for begin, end in cuts]
    listed.write_text("".join(texts))
    run(f"-f concat -safe 0 -i {listed} -c copy", path := folder / "overlap.mkv")
    for sampling, frames in (("uniform", 16), ("stride:1", 999)):
        request = FrameRequest(str(path), sampling, frames)
        with closing(PyAVReader(str(path))) as reader:
            found = read_from(reader, request)
        with closing(PyAVReader(str(path), again=True)) as whole:
            expected = read_from(whole, request)
        assert found.times.tolist() == expected.times.tolist()
        assert (found.pixels == expected.pixels).all()


def test_parts() -> None:
    """Five groups of 20 frames, the packets in the order of presentation."""
    times = np.arange(100) / 10
    keys = [KeyFrame(n * 2.0, n * 20, n * 20, n * 20) for n in range(5)]
    positions = np.arange(100)
    index = Index(FrameTimes(times, 10.0), positions, positions, keys, doubtful=False)

    def parts(*wanted: int) -> list[tuple[int, list[int]]]:
        found = index.parts(np.array(wanted))
        return [(key.position, pixels.tolist()) for key, pixels in found]

    assert parts(0) == [(0, [0])]
    assert parts(99) == [(80, [99])]
    assert parts(5, 7, 45, 59) == [(0, [5, 7]), (40, [45, 59])]
    near = 20 - FRAMES_A_SEEK
    assert parts(near, 25) == [(0, [near, 25])]  # decoding on is nearer than a seek
    assert parts(near - 1, 25) == [(0, [near - 1]), (20, [25])]
    assert parts(*range(0, 100, 9)) == [(0, list(range(0, 100, 9)))]


def test_key_frames_of_hevc_that_are_none() -> None:
    """By the types of units, in packets made by hand; an AUD or parameter set may come first."""

    def packet(*kinds: int, size: int = 4) -> Packet[Any]:
        units = [size.to_bytes(4, "big") + bytes([kind << 1, 1, 2, 3]) for kind in kinds]
        return Packet(b"".join(units))

    assert _is_random_access(packet(35, 32, 19), 4)
    assert _is_random_access(packet(21, 0), 4)
    assert not _is_random_access(packet(1), 4)
    assert not _is_random_access(packet(39, 8, 19), 4)
    damaged = (
        bytes(40),
        b"\xff" * 40,
        b"\0",
        bytes(packet(19, size=0)),
        bytes(packet(39, size=99)),
    )
    for data in damaged:
        assert not _is_random_access(Packet(data), 4)


def check_same(
    found: list[tuple[list[Pixels], Times]], expected: list[tuple[list[Pixels], Times]]
) -> None:
    """See that each part has the same frames at the same times."""
    for (pixels, times), (right, right_times) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(times, right_times)
        np.testing.assert_array_equal(np.stack(pixels), np.stack(right))


@pytest.mark.parametrize("name", CODECS)
def test_far_behind_a_key_frame_nothing_is_decoded_for_two_calls(name, tmp_path):
    """Every call gives the frames of the whole, in whatever order calls come."""
    options = CODECS[name].replace("-g 50", "-g 9999").replace("keyint=50", "keyint=9999")
    path = tmp_path / name
    run(LONG + f"{options} -sc_threshold 0 -threads 1", path)
    parts = [np.arange(start, start + 3, 0.25) for start in (0, 3, 12, 15, 18, 21)]
    with closing(PyAVReader(str(path), keep_bytes=0)) as alone:
        expected = [alone.read(part) for part in parts]
    with closing(PyAVReader(str(path), again=True, keep_bytes=0)) as kept:
        found = [kept.read(part) for part in parts]
        assert kept.decoded <= (3 + 6 + 24) * 25 + 30, (
            "all once, and the beginning for each near it"
        )
        for number in (4, 1, 5, 0):
            found[number] = kept.read(parts[number])
        assert kept.warnings == []
    check_same(found, expected)


@pytest.mark.parametrize(
    ("codec", "group"),
    [
        ("-c:v mpeg4 -bf 2 -g 50", 50),
        ("-c:v mpeg4 -g 50", 50),
        ("-c:v libxvid -bf 2 -g 50", 50),
        ("-c:v mjpeg", 1),
        ("-c:v mpeg2video -bf 2 -g 50", 50),
        (f"-c:v libx264 {CODECS['h264.mp4'].partition('libx264')[2]}", 50),
        ("-c:v libx264 -g 50 -bf 3 -pix_fmt yuv420p -x264-params open_gop=1", 50),
    ],
)
def test_a_long_avi_is_read_from_its_key_frames(codec: str, group: int, tmp_path: Path) -> None:
    """Every frame has the time that decoding the whole gives it, and is the same one."""
    run(LONG + codec, path := tmp_path / "long.avi")
    with closing(PyAVReader(str(path), again=True)) as whole:
        shown = whole.frame_times
        parts = [np.arange(start, start + 3, 0.2) for start in (0.1, 12.1, 4.0, 18.02, 21.3)]
        expected = [whole.read(part) for part in parts]
    with closing(PyAVReader(str(path), again=True, keep_bytes=0)) as reader:
        assert reader.decoded == 0
        assert reader.frame_times.times == pytest.approx(shown.times, abs=1e-9)
        assert reader.frame_times.end == pytest.approx(shown.end, abs=1e-9)
        before = reader.decoded
        found = [reader.read(part) for part in parts]
        assert reader.decoded - before <= len(parts) * (75 + 2 * group + 40)
        assert reader.warnings == []
    check_same(found, expected)


def same_as_whole(path: Path, *starts: float) -> list[str]:
    """See that parts of a long AVI are as they are when all of it is decoded; the warnings."""
    parts = [np.arange(start, start + 3, 0.2) for start in starts]
    with closing(PyAVReader(str(path), again=True)) as whole:
        expected = [whole.read(part) for part in parts]
    with closing(PyAVReader(str(path), again=True, keep_bytes=0)) as reader:
        found = [reader.read(part) for part in parts]
        warnings = reader.warnings
    check_same(found, expected)
    return warnings


@pytest.mark.parametrize("codec", ["mpeg4 -bf 2", "msmpeg4", "mjpeg"])
def test_a_long_avi_that_is_torn_is_read_all_the_same(codec: str, folder: Path) -> None:
    """Its list of packets, which is at its end, is gone; of some codecs any may be a key frame."""
    run(LONG + f"-c:v {codec} -g 50", path := folder / f"torn_{codec[:6]}.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert any("cut off" in text for text in same_as_whole(path, 0.1, 7.1, 4.0))


@pytest.mark.parametrize("codec", ["mpeg4 -bf 2", "mjpeg"])
def test_a_long_avi_with_lost_packets_is_read_from_its_beginning(codec: str, folder: Path) -> None:
    """What follows them has other times than the file's list of packets says."""
    run(LONG + f"-c:v {codec} -g 50", path := folder / f"lost_{codec[:6]}.avi")
    content = bytearray(path.read_bytes())
    tenth = len(content) // 10
    content[3 * tenth : 4 * tenth] = bytes(tenth)
    path.write_bytes(content)
    assert any("beginning" in text for text in same_as_whole(path, 0.1, 15.1, 18.1, 12.0))


def test_a_long_avi_of_uneven_times(folder: Path) -> None:
    """It counts moments without a frame, of which there may be many for each with one."""
    options = "-fps_mode passthrough -enc_time_base 1/1000 -c:v mpeg4 -bf 2 -g 50"
    run(LONG + options, path := folder / "uneven.avi")
    assert same_as_whole(path, 0.1, 12.1, 4.0, 18.02) == []
