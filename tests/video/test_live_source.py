"""Reading live sources: which frames come, and what becomes of gaps, damage and silence."""

from __future__ import annotations

import os
import re
import sys
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from heard import Heard
from hypothesis import given, settings
from hypothesis import strategies as st
from live_streams import PACKET, serve, standard_input, write_stream

from vidfuse.errors import InputError, UserError
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest
from vidfuse.video.live import LiveRequest, LiveStream, Sample, find_source
from vidfuse.video.live_worker import FrameSampler, Shown
from vidfuse.video.sampling import FrameTimes, Sampling

REQUEST = LiveRequest(rate=8, gap=2, hold=8, size=32)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream") / "four.ts")


def chosen_of(times: list[float], rate: float, gap: float = 1e9, length: float = 0.04) -> list[Any]:
    sampler = FrameSampler(rate, gap)
    found = [sampler.add(Shown(t, length, 0.0, None)) for t in times]  # type: ignore[arg-type]
    return [each for each in [*found, sampler.finish()] if each is not None]


@given(
    steps=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    begin=st.integers(-1000, 1000),
    rate=st.sampled_from([0.5, 2.0, 7.3, 25.0, 40.0]),
)
@settings(max_examples=200, deadline=None)
def test_frames_are_those_of_a_file(steps, begin, rate):
    """Also of one with fewer frames than moments, and with frames at moments themselves."""
    times = np.cumsum(np.array([0, *steps])) / 100
    length = steps[-1] / 100
    expected = Sampling.parse(f"rate:{rate}").pick(
        FrameTimes(times, float(times[-1]) + length, start=0.0), 10**6
    )
    found = chosen_of([t + begin / 100 for t in times], rate, length=length)
    shown = [each.shown.time for each in found for _ in range(each.moments)]
    if found:
        assert shown == pytest.approx(times[expected].tolist())
        assert [each.number for each in found] == np.cumsum(
            [0, *(each.moments for each in found[:-1])]
        ).tolist()
    else:  # of a file that is shorter than half a moment there is one all the same
        assert len(expected) == 1


def test_a_gap_begins_a_run():
    times = [0.0, 0.1, 0.2, 3.0, 3.1]
    short, long = (chosen_of(times, 10, gap=gap, length=0.1) for gap in (5, 1))
    assert [each.run for each in short] == [0] * 5
    assert short[2].moments == 28, "the frame on screen stays there"
    assert [(each.run, each.number) for each in long] == [(0, 0), (0, 1), (0, 2), (1, 30), (1, 31)]
    assert [each.moments for each in long] == [1] * 5


def test_a_step_back_begins_a_run_and_time_goes_on():
    found = chosen_of([5.0, 5.1, 5.2, 1.0, 1.1], 10, gap=1, length=0.1)
    assert [each.run for each in found] == [0, 0, 0, 1, 1]
    assert [each.shown.time for each in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    (one,) = {each.run for each in chosen_of([5.0, 5.1, 5.05, 5.2], 10, gap=1)}
    assert one == 0, "frames that are a little out of order are none"


def test_a_last_frame_stays_no_longer_than_a_gap():
    found = chosen_of([0.0, 0.1, 9.0, 9.1], 10, gap=1, length=1e9)
    assert [each.moments for each in found] == [1, 10, 1, 10]


def follow(source: str, heard: Heard, patience: float = 20, **changes: Any) -> LiveStream:
    request = LiveRequest(**{f: getattr(REQUEST, f) for f in REQUEST.__slots__} | changes)
    return LiveStream(find_source(source), request, patience=patience, memory=None, reporter=heard)


MOST_BATCHES = 200  # of a test, which would not end where a file is read again and again


def all_of(stream: LiveStream) -> list[Sample]:
    return [sample for batch in islice(stream.batches(), MOST_BATCHES) for sample in batch]


def test_a_pipe_has_the_frames_of_its_file(stream: Path):
    """Every one of them, however slowly they are fetched."""
    heard = Heard()
    with standard_input(stream.read_bytes()):
        found = []
        for batch in follow("pipe:", heard, hold=4).batches():
            time.sleep(0.05)
            found += batch
    file = read_frames(FrameRequest(str(stream), "rate:8", 1000, start=0.0, size=32), "pyav")
    assert [sample.time for sample in found] == pytest.approx(file.times.tolist(), abs=1e-4)
    np.testing.assert_array_equal(np.stack([sample.pixels for sample in found]), file.pixels)
    assert [sample.number for sample in found] == list(range(32))
    assert all(time.monotonic() - 60 < sample.arrived < time.monotonic() for sample in found)
    assert heard.warnings == []


def test_damage_is_skipped_and_told_once(stream: Path):
    content = bytearray(stream.read_bytes())
    random = np.random.default_rng(0)
    for start in range(len(content) // 3, 2 * len(content) // 3, 5 * PACKET):
        content[start + 20 : start + 120] = random.bytes(100)
    heard = Heard()
    with standard_input(bytes(content)):
        found = all_of(follow("pipe:", heard))
    assert len(found) > 16
    assert heard.warnings == ["pipe:: some of what comes is damaged"]


def test_a_gap_and_a_step_back_are_told(stream: Path, tmp_path: Path):
    later = write_stream(tmp_path / "later.ts", 2, first=20)
    heard = Heard()
    with standard_input(stream.read_bytes() + later.read_bytes() + stream.read_bytes()):
        found = all_of(follow("pipe:", heard))
    assert [sample.run for sample in found if sample.number == 0] == [0]
    assert {sample.run for sample in found} == {0, 1, 2}
    gap, back = heard.warnings
    assert re.fullmatch(r"pipe:: no frame from 3\.\d to (19|20)\.\d s, so a new window begins", gap)
    assert re.fullmatch(r"pipe:: its time steps back at 2\d\.\d s, so a new window begins", back)


def test_what_is_no_video():
    for content in (b"", b"no video at all" * 1000):
        with standard_input(content), pytest.raises(InputError, match="pipe:") as caught:
            all_of(follow("pipe:", Heard()))
        assert caught.value.exit_code == 1
        assert "mpegts" in str(caught.value.hint)


def test_a_pipe_that_ends_before_its_first_sample(stream: Path):
    with standard_input(stream.read_bytes()), pytest.raises(InputError, match="before its first"):
        all_of(follow("pipe:", Heard(), rate=0.1))


def test_a_stream_that_breaks_is_connected_again(stream: Path):
    content = stream.read_bytes()
    half = len(content) // 2 // PACKET * PACKET
    heard = Heard()
    with serve(content[:half], content, rate=len(content) / 4, endless=True) as server:
        samples: list[Sample] = []
        reading = follow(server.url, heard).batches()
        while len(samples) < 40:
            samples += next(reading)
        reading.close()
    assert server.asked == 2
    runs = [sample.run for sample in samples]
    assert runs == sorted(runs)
    assert set(runs) >= {0, 1}
    assert heard.warnings[0] == f"{server.url}: the stream ended; connecting again"
    # Time goes on by the clock where nobody knows how long nothing was sent.
    assert all(0 < two.time - one.time < 10 for one, two in pairwise(samples))
    first = next(index for index, run in enumerate(runs) if run)
    by_clock = samples[first].arrived - samples[first - 1].arrived
    assert samples[first].time - samples[first - 1].time == pytest.approx(by_clock)


def readers() -> list[psutil.Process]:
    """The processes that read a stream for this one, which may have children that ended."""
    children = psutil.Process().children()
    commands = [each.as_dict(["cmdline"], ad_value=[])["cmdline"] for each in children]
    return [
        child
        for child, command in zip(children, commands, strict=True)
        if "live_worker" in str(command)
    ]


def test_a_reader_that_dies_is_replaced(stream: Path):
    content = stream.read_bytes()
    heard = Heard()
    with serve(content, rate=len(content) / 4, endless=True) as server:
        reading = follow(server.url, heard).batches()
        (before, *_) = next(reading)
        for reader in readers():
            reader.kill()
        after = before
        while after.run == before.run:
            after = next(reading)[-1]
        reading.close()
    assert "its reader was killed" in heard.warnings[0]
    assert after.time > before.time
    assert not readers()


def test_who_is_too_slow_gets_the_newest(stream: Path):
    """Memory is that of a few samples, and the delay that of a few, too."""
    content = stream.read_bytes()
    heard = Heard()
    with serve(content, rate=len(content) / 4, endless=True) as server:
        followed = follow(server.url, heard, hold=4)
        reading = followed.batches()
        samples = list(next(reading))
        for _ in range(3):
            time.sleep(1.5)
            batch = next(reading)
            assert len(batch) <= 4
            assert time.monotonic() - batch[-1].arrived < 1
            samples += batch
        reading.close()
    numbers = [(sample.run, sample.number) for sample in samples]
    assert numbers == sorted(set(numbers))
    assert followed.dropped >= 12
    late, back = sorted(heard.warnings, key=lambda text: "steps back" in text)
    assert late == f"{server.url}: this machine cannot keep up, so some frames are left out"
    assert "its time steps back" in back, "the server begins again and again"


def test_silence_is_given_up():
    heard = Heard()
    with serve(b"") as server, pytest.raises(InputError, match="no frame for 2 s") as caught:
        all_of(follow(server.url, heard, patience=2))
    assert "--patience" in str(caught.value.hint)
    with pytest.raises(InputError, match=r"no frame for 4 s \(Connection refused\)"):
        all_of(follow(server.url, heard, patience=4))
    refused = [line for line in heard.warnings if "refused" in line]
    assert len(refused) == 1, "told once, however often it is tried"


def test_a_file_that_is_served_ends(stream: Path, tmp_path: Path):
    """Matroska says how long it is: then nothing is left out, and the end is the end."""
    import subprocess

    import imageio_ffmpeg

    file = tmp_path / "four.mkv"
    words = ["-v", "error", "-i", str(stream), "-c", "copy", str(file)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *words], check=True)
    heard = Heard()
    with serve(file.read_bytes()) as server:
        found = all_of(follow(server.url, heard, hold=4))
    assert [sample.number for sample in found] == list(range(32))
    assert heard.warnings == []


def test_mpeg_ts_of_a_known_size_is_a_file(stream: Path):
    """Its container does not say how long it is, but the server does."""
    heard = Heard()
    with serve(stream.read_bytes(), sized=True) as server:
        found = all_of(follow(server.url, heard, hold=4))
    assert [sample.number for sample in found] == list(range(32))
    assert server.asked <= 2, "FFmpeg may look at the end, and then it is read once"
    assert heard.warnings == []


def test_a_served_file_that_breaks_off(stream: Path):
    """It is not asked for again, since that would begin it anew."""

    class Torn(bytes):
        def __len__(self) -> int:
            return 2 * super().__len__()

    heard = Heard()
    with serve(Torn(stream.read_bytes()), sized=True) as server:
        assert len(all_of(follow(server.url, heard, hold=4))) == 32
    assert heard.warnings == [f"{server.url}: the connection broke before the end of the file"]


def test_an_index_at_the_end_of_a_served_file(stream: Path, tmp_path: Path):
    import subprocess

    import imageio_ffmpeg

    file = tmp_path / "four.mp4"
    words = ["-v", "error", "-i", str(stream), "-c", "copy", str(file)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *words], check=True)
    with serve(file.read_bytes(), sized=True) as server, pytest.raises(InputError) as caught:
        all_of(follow(server.url, Heard(), patience=3))
    assert "faststart" in str(caught.value.hint)
    assert "|" not in str(caught.value.hint), "a server has no pipe"


def test_a_server_leads_to_no_file(stream: Path):
    """A playlist may name files of whoever reads it, which are none of the server's business."""
    target = "4\n#EXTINF:4,\n"
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:{target}{stream.as_uri()}\n"
    with serve(playlist.encode()) as server, pytest.raises(InputError, match="no frame"):
        all_of(follow(server.url.replace(".ts", ".m3u8"), Heard(), patience=3))


def test_sources():
    assert find_source("pipe:").is_pipe
    url = find_source("rtsp://user:pa@ss@camera/1")
    assert (url.address, url.name) == ("rtsp://user:pa@ss@camera/1", "rtsp://user:***@camera/1")
    assert find_source("http://host/a@b:c").name == "http://host/a@b:c"
    assert find_source("dshow:video=My Camera").format == "dshow"
    if sys.platform == "linux":
        device = find_source(os.devnull)
        assert (device.address, device.format) == (os.devnull, "v4l2")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("-", "as pipe:"),
        ("", "not a live source"),
        ("nosuch.mp4", "no such file"),
        ("/dev/video99", "no such device"),
        ("--model", "needs a source"),
        ("file:///etc/passwd", "not a live source"),
        ("concat:a|b", "not a live source"),
        ("http:", "not a live source"),
        (__file__, "that is a file"),
        (str(Path(__file__).parent), "that is a folder"),
    ],
)
def test_what_is_no_source(source: str, said: str):
    with pytest.raises(UserError, match="--live") as caught:
        find_source(source)
    assert said in caught.value.message
    assert caught.value.hint
