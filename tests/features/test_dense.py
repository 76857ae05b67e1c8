"""Dense features: a video of any length, stretch by stretch, and nothing computed twice."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from clips import SPEC, extractor
from pattern import write_pattern

from vidfuse.data.clip import Clip
from vidfuse.data.content import Stamp
from vidfuse.errors import InputError
from vidfuse.features.cache import Entry
from vidfuse.features.dense import (
    dense_features,
    dense_spec,
    first_sample,
    lost_moments,
    sampled,
)
from vidfuse.features.encode import Job
from vidfuse.features.extract import Extractor
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.pyav_stream import VideoFile
from vidfuse.video.pyav_stretches import list_stretches
from vidfuse.video.sampling import even_moments
from vidfuse.video.stretch import Hole, Stretch

RATE = 0.5  # samples a second
SECONDS = 200
STRETCHES = 8  # of 27 seconds, three times that from a key frame to the next
DENSE = replace(dense_spec(SPEC, RATE), layer="layer1")


def encode(path: Path, options: str, seconds: int = SECONDS) -> Path:
    return write_pattern(path, options, rate=5, seconds=seconds)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 seconds of H.264 with a key frame every 9 seconds."""
    options = "-c:v libx264 -g 45 -bf 2 -preset ultrafast -pix_fmt yuv420p"
    return encode(tmp_path_factory.mktemp("dense") / "video.mp4", options)


@pytest.fixture(scope="module")
def stream(video: Path) -> Path:
    """The same packets in a container that can grow."""
    path = video.with_suffix(".ts")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(video), "-c", "copy"]
    subprocess.run([*command, str(path)], check=True)
    return path


def stretches_of(path: Path) -> list[Stretch]:
    file = VideoFile(str(path))
    try:
        return list_stretches(file)
    finally:
        file.close()


def dense(made: Extractor, path: Path) -> list[tuple[Stretch, Entry | InputError]]:
    with OpenClips("auto", workers=2) as pool:
        return list(dense_features(replace_pool(made, pool), pool, path))


def replace_pool(made: Extractor, pool: OpenClips) -> Extractor:
    made.pool = pool
    return made


def sound(found: list[tuple[Stretch, Entry | InputError]]) -> list[Entry]:
    entries = [entry for _, entry in found if isinstance(entry, Entry)]
    assert len(entries) == len(found), found
    return entries


def test_stretches_begin_at_key_frames_and_follow_each_other(video: Path) -> None:
    found = stretches_of(video)
    assert [each.start for each in found] == pytest.approx(range(0, SECONDS, 27))
    assert all(one.end == next_.start for one, next_ in pairwise(found))
    assert found[-1].end == pytest.approx(SECONDS)
    assert len({each.digest for each in found}) == STRETCHES


def test_where_no_key_frame_comes_stretches_are_cut(tmp_path: Path) -> None:
    options = "-c:v libx264 -g 9999 -preset ultrafast -sc_threshold 0 -pix_fmt yuv420p"
    found = stretches_of(encode(tmp_path / "one-key.mp4", options, 100))
    times = [0, 20, 20, 40, 40, 60, 60, 80, 80, 100]
    assert [time for each in found for time in (each.start, each.end)] == pytest.approx(times)


def test_frames_are_those_of_the_whole_video(video: Path, tmp_path: Path) -> None:
    entries = sound(dense(extractor(tmp_path, DENSE), video))
    whole = read_frames(FrameRequest(str(video), f"rate:{RATE}", 999, size=32), "pyav")
    times = np.concatenate([entry.times for entry in entries])
    assert times.tolist() == whole.times.tolist()
    moments = even_moments(RATE, 0, SECONDS)
    assert len(times) == len(moments) == RATE * SECONDS
    assert ((moments - times >= -1e-6) & (moments - times < 0.2)).all()
    made = extractor(None, replace(DENSE, frames=999))
    ((_, entry),) = made.run([Clip(video)])
    assert isinstance(entry, Entry)
    features = np.concatenate([each.features for each in entries])
    np.testing.assert_allclose(features, entry.features, rtol=2**-9, atol=2**-9)


@pytest.mark.parametrize("rate", [0.03, 0.004])
def test_samples_that_are_further_apart_than_stretches(
    video: Path, tmp_path: Path, rate: float
) -> None:
    """Each comes once, and none from behind the end."""
    made = extractor(tmp_path, replace(dense_spec(SPEC, rate), layer="layer1"))
    found = dense(made, video)
    samples = 0
    for (stretch, _), entry in zip(found, sound(found), strict=True):
        assert first_sample(rate, stretch) == samples
        samples += len(entry.times)
    assert samples == round(rate * SECONDS)


def test_a_stretch_between_two_samples_has_none() -> None:
    stretches = [Stretch(0, 20), Stretch(20, 20.065), Stretch(20.065, 20.08)]
    assert sampled(5.0, stretches) == stretches[:1]
    assert sampled(25.0, stretches) == stretches[:2]
    assert sampled(0.01, stretches) == stretches[:1], "of a video there is one"
    thirds = [Stretch(0, 20), Stretch(20, 40), Stretch(40, 49)]
    assert sampled(0.01, thirds) == thirds[1:2], "the one in its middle"
    assert even_moments(0.01, 20, 40).tolist() == [30]


def test_frames_that_come_several_times_are_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four samples of each frame: the features of one, and a warning."""
    rate, encoded = 20.0, list[int]()
    add = Job.add

    def count(job: Job, first: int, features: list[Any]) -> None:
        encoded.append(len(features[0]))
        add(job, first, features)

    monkeypatch.setattr(Job, "add", count)
    short = encode(tmp_path / "short.mp4", "-c:v libx264 -bf 2 -pix_fmt yuv420p", 6)
    made = extractor(tmp_path / "cache", replace(dense_spec(SPEC, rate), layer="layer1"))
    (entry,) = sound(dense(made, short))
    assert sum(encoded) == 6 * 5
    moments = even_moments(rate, 0, 6)
    assert entry.times.tolist() == pytest.approx((moments * 5 // 1 / 5).tolist())
    plain = extractor(None, replace(dense_spec(SPEC, 5.0), layer="layer1"))
    (once,) = sound(dense(plain, short))
    np.testing.assert_allclose(
        entry.features, np.repeat(once.features, 4, 0), rtol=2**-9, atol=2**-9
    )
    ((warning),) = entry.info.warnings
    assert "20 samples a second, of a video with 5 frames a second" in warning
    assert once.info.warnings == []
    with pytest.raises(InputError, match="251 samples a second") as caught:
        dense(extractor(None, dense_spec(SPEC, 251.0)), short)
    assert "Choose 5 at most" in str(caught.value.hint)


def test_an_interrupted_video_goes_on_where_it_was(video: Path, tmp_path: Path) -> None:
    first = extractor(tmp_path, DENSE)
    with OpenClips("auto", workers=1) as pool:
        going = dense_features(replace_pool(first, pool), pool, video)
        next(going)
        next(going)
        del going  # ends its threads
    again = extractor(tmp_path, DENSE)
    sound(dense(again, video))
    assert again.stats.reused >= 2
    assert again.stats.computed == STRETCHES - again.stats.reused


def test_of_a_video_that_has_grown_only_the_end_is_computed(stream: Path, tmp_path: Path) -> None:
    path = tmp_path / "growing.ts"
    data = stream.read_bytes()
    path.write_bytes(data[: len(data) * 8 // 10 // 188 * 188])
    before = extractor(tmp_path, DENSE)
    part = sound(dense(before, path))
    assert before.stats.computed == len(part) == STRETCHES - 2
    path.write_bytes(data)
    after = extractor(tmp_path, DENSE)
    whole = sound(dense(after, path))
    assert (after.stats.reused, after.stats.computed) == (STRETCHES - 3, 3)
    assert len(whole) == STRETCHES


def test_a_damaged_entry_is_computed_again(video: Path, tmp_path: Path) -> None:
    sound(dense(extractor(tmp_path, DENSE), video))
    path = sorted(tmp_path.rglob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-5])
    again = extractor(tmp_path, DENSE)
    sound(dense(again, video))
    assert (again.stats.reused, again.stats.computed) == (STRETCHES - 1, 1)


@pytest.mark.parametrize("group", [45, 9999])
def test_a_video_may_grow_while_it_is_read(group: int, tmp_path: Path) -> None:
    """Frames of open groups are stored behind the key frame that follows them."""
    options = f"-c:v libx264 -g {group} -bf 3 -x264-params open_gop=1 -preset ultrafast"
    data = encode(tmp_path / "whole.ts", f"{options} -pix_fmt yuv420p").read_bytes()
    path = tmp_path / "growing.ts"
    packets = len(data) // 188
    ends = np.linspace(packets // 2, packets, 6).astype(int).tolist()
    path.write_bytes(data[: ends.pop(0) * 188])

    class Growing(OpenClips):
        """More of the video is there when its stretches are known."""

        def stretches(self, path: str, fps: float) -> tuple[list[Stretch], Stamp | None]:
            found = super().stretches(path, fps)
            Path(path).write_bytes(data[: ends.pop(0) * 188])
            return found[0], None

    for _ in range(2):
        with Growing("auto", workers=1) as pool:
            going = dense_features(replace_pool(extractor(tmp_path, DENSE), pool), pool, path)
            if group == 45:
                assert sound(list(going))
            else:  # nothing tells a recording without key frames from another one
                with pytest.raises(InputError, match="changed while it was read"):
                    list(going)


def test_a_last_frame_that_stays_is_no_damage(tmp_path: Path) -> None:
    """As in a screen recording; the packet says for how long."""
    path = tmp_path / "still.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        packets = []
        for number in range(100):
            image = np.full((48, 64, 3), number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode()
        packets[-1].duration = 500
        container.mux(packets)
    assert stretches_of(path)[-1].end == pytest.approx(24, abs=0.1)
    found = dense(extractor(None, DENSE), path)
    entries = sound(found)
    assert len(found) == len(entries)
    assert sum(len(each.times) for each in entries) == 12
    warnings = [text for each in entries for text in each.info.warnings]
    assert warnings == ["no frames from 4.2 to 24.0 s: the one before stays on screen"]


def test_what_is_computed_later_has_the_precision_of_the_rest(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a calibration pays is a matter of the whole video."""
    said = []

    def compute(self: Extractor, waiting: deque[Any], *, many: bool) -> Iterator[Any]:
        said.append(many)
        return computing(self, waiting, many=many)

    computing = Extractor.compute
    monkeypatch.setattr(Extractor, "compute", compute)
    monkeypatch.setattr("vidfuse.features.dense.MANY_SECONDS", SECONDS - 1)
    dense(extractor(tmp_path, DENSE), video)
    for path in sorted(tmp_path.rglob("*.safetensors"))[:2]:
        path.unlink()
    dense(extractor(tmp_path, DENSE), video)
    assert said == [True, True]


@pytest.mark.parametrize("settled", [True, False])
def test_a_video_that_becomes_another_is_no_video(
    video: Path, tmp_path: Path, settled: bool
) -> None:
    path = Path(shutil.copy(video, tmp_path / "video.mp4"))
    other = encode(tmp_path / "other.mp4", "-c:v libx264 -g 45 -vf negate -preset ultrafast")

    class Replaced(OpenClips):
        """The video is replaced when its stretches are known."""

        def stretches(self, path: str, fps: float) -> tuple[list[Stretch], Stamp | None]:
            found = super().stretches(path, fps)
            Path(path).write_bytes(other.read_bytes())
            return found if settled else (found[0], None)  # as of one that is being written

    made = extractor(tmp_path / "cache", DENSE)
    with Replaced("auto", workers=1) as pool:
        going = dense_features(replace_pool(made, pool), pool, path)
        with pytest.raises(InputError, match="changed while it was read"):
            list(going)
    again = extractor(tmp_path / "cache", DENSE)
    sound(dense(again, path))
    assert again.stats.computed == STRETCHES, "nothing of the mixture is kept"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xvid.avi", "-c:v mpeg4 -bf 2 -q:v 5"),
        ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50"),
        ("mjpeg.mkv", "-c:v mjpeg"),
        ("h264.mpg", "-c:v mpeg2video -g 12"),
    ],
)
def test_other_formats(name: str, options: str, tmp_path: Path) -> None:
    path = encode(tmp_path / name, options, 130)
    found = dense(extractor(None, DENSE), path)
    times = np.concatenate([entry.times for entry in sound(found)])
    assert len(times) == pytest.approx(130 * RATE, abs=1)
    assert (np.diff(times) > 0).all()
    assert 5 <= len(found) <= 7


def test_frame_folders_are_long_videos_too(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number:03}.png")
    made = extractor(tmp_path / "cache", replace(DENSE, fps=0.1))  # 200 seconds
    found = dense(made, folder)
    assert [round(stretch.start) for stretch, _ in found] == list(range(0, 200, 20))
    assert sum(len(entry.times) for entry in sound(found)) == 100
    again = extractor(tmp_path / "cache", replace(DENSE, fps=0.1))
    dense(again, folder)
    assert again.stats.reused == 10


def test_no_video_at_all(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    path.write_bytes(b"this is no video" * 100)
    with pytest.raises(InputError, match="not a video"):
        dense(extractor(None, DENSE), path)


def without_frames(stream: Path, to: Path, start: float, end: float, *, damaged: bool) -> Path:
    """The stream without its packets of some seconds; with one that is torn where it was damaged.

    Packets of MPEG-TS are 188 bytes; the second byte has the flag of a packet that begins a frame.
    """
    content, kept, shown = stream.read_bytes(), bytearray(), -1.0
    counters = dict[int, int]()
    for at in range(0, len(content), 188):
        packet = bytearray(content[at : at + 188])
        number = (packet[1] & 31) << 8 | packet[2]
        if number == 256 and packet[1] & 64:
            begin = 4 + (1 + packet[4] if packet[3] & 32 else 0)
            raw = packet[begin + 9 : begin + 14]
            ticks = (raw[0] >> 1 & 7) << 30 | raw[1] << 22 | (raw[2] >> 1) << 15
            shown = (ticks | raw[3] << 7 | raw[4] >> 1) / 90000 - 1.4
        if number == 256 and start <= shown < end:
            continue
        if packet[3] & 16 and not damaged:  # the counter goes on, as where nothing was sent
            counters[number] = (counters.get(number, -1) + 1) % 16
            packet[3] = packet[3] & 240 | counters[number]
        kept += packet
    to.write_bytes(kept)
    return to


@pytest.mark.parametrize("damaged", [True, False])
def test_a_hole_is_a_gap_only_where_the_file_is_damaged(
    stream: Path, tmp_path: Path, damaged: bool
) -> None:
    path = without_frames(stream, tmp_path / "hole.ts", 30, 44, damaged=damaged)
    holes = {hole for each in stretches_of(path) for hole in each.holes}
    assert [hole.damaged for hole in holes] == [damaged]
    assert [(hole.start, hole.end) for hole in holes] == [pytest.approx((30, 44), abs=0.5)]
    found = dense(extractor(tmp_path / "cache", DENSE), path)
    again = dense(extractor(tmp_path / "cache", DENSE), path)
    assert [(s, type(e)) for s, e in found] == [(s, type(e)) for s, e in again]
    warnings = [text for _, e in found if isinstance(e, Entry) for text in e.info.warnings]
    if not damaged:
        assert len(warnings) == 1
        assert "no frames from 29.6 to 43.6 s" in warnings[0]
        assert len(np.concatenate([e.features for e in sound(found)])) == RATE * SECONDS
        return
    assert warnings == []
    ((gap, error),) = [(s, e) for s, e in found if isinstance(e, InputError)]
    assert (gap.start, gap.end) == pytest.approx((30, 44), abs=2 / RATE)
    assert "damaged" in error.reason
    read = [first_sample(RATE, s) + n for s, e in found if isinstance(e, Entry)
            for n in range(len(e.times))]  # fmt: skip
    assert read == [n for n in range(int(RATE * SECONDS)) if not 15 <= n < 22]


def test_frames_that_are_listed_and_do_not_decode_are_a_gap() -> None:
    """Their packets are there, so the frame before has been on screen for too long."""
    still = Hole(40.0, 55.0, damaged=False)
    stretch = Stretch(20, 60, "", 25.0, (still,), longest=2.04)
    moments = even_moments(1.0, 20, 60)
    times = np.minimum(moments, 39.96)
    times[:5] = 20.0
    lost = lost_moments(1.0, stretch, times)
    # Five samples have one frame, of which the last three are too old; the hole itself is still,
    # and what should be shown behind it is not.
    assert moments[lost].tolist() == [22.5, 23.5, 24.5, 55.5, 56.5, 57.5, 58.5, 59.5]
