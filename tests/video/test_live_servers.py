"""Live sources as other programs serve them: FFmpeg by HTTP and UDP, GStreamer by RTSP.

FFmpeg comes with the packages of the tests. The RTSP server is Debian's, and without it its tests
are skipped::

    apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-rtsp \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import pytest
from heard import Heard
from live_streams import write_stream

from vidfuse.video.live import LiveRequest, LiveStream, Sample, find_source

REQUEST = LiveRequest(rate=8, gap=2, hold=8, size=32)
RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=96,height=64,framerate=25/1 ! "
    "x264enc tune=zerolatency key-int-max=25 ! rtph264pay name=pay0 pt=96 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream") / "stream.ts", 4)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ffmpeg(stream: Path, *output: str) -> list[str | Path]:
    """Sends a file again and again, in real time."""
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-re", "-stream_loop", "-1"]
    return [*program, "-i", stream, "-c", "copy", *output]


def first_samples(url: str, count: int, heard: Heard, patience: float = 40) -> list[Sample]:
    found: list[Sample] = []
    follower = LiveStream(find_source(url), REQUEST, patience=patience, memory=None, reporter=heard)
    reading = follower.batches()
    try:
        while len(found) < count:
            found += next(reading)
    finally:
        reading.close()
    return found


def check(samples: Sequence[Sample], heard: Heard) -> None:
    """See that samples follow each other in media time and by the clock, and are no still."""
    assert {sample.run for sample in samples} == {0}, heard.warnings
    apart = [two.time - one.time for one, two in pairwise(samples)]
    assert apart == pytest.approx([1 / REQUEST.rate] * len(apart), abs=0.05)
    by_clock = samples[-1].arrived - samples[0].arrived
    assert by_clock < samples[-1].time - samples[0].time + 3
    assert len({sample.pixels.tobytes() for sample in samples}) > len(samples) // 2


def test_mpeg_ts_by_http(stream: Path):
    """FFmpeg's server takes one client, and ends with it: the next one connects again."""
    url = f"http://127.0.0.1:{free_port()}/stream.ts"
    words = ffmpeg(stream, "-f", "mpegts", "-listen", "1", url)
    heard = Heard()
    with running(*words):
        check(first_samples(url, 24, heard), heard)
    heard = Heard()
    follower = LiveStream(find_source(url), REQUEST, patience=40, memory=None, reporter=heard)
    reading = follower.batches()
    with running(*words):
        before = next(reading)[-1]
    after = before
    with running(*words):
        while after.run == before.run:
            after = next(reading)[-1]
    reading.close()
    assert after.time > before.time
    assert "connecting again" in heard.warnings[0]


def test_mpeg_ts_by_udp(stream: Path):
    url = f"udp://127.0.0.1:{free_port()}"
    heard = Heard()
    with running(*ffmpeg(stream, "-f", "mpegts", f"{url}?pkt_size=1316")):
        samples = first_samples(url, 24, heard)
    check(samples, heard)


@pytest.fixture(scope="module")
def python_with_gstreamer() -> str:
    """A Python that has GStreamer's RTSP server: that of the system."""
    asks = "import gi; gi.require_version('GstRtspServer', '1.0')"
    for name in ("/usr/bin/python3", shutil.which("python3")):
        if name is None or not Path(name).exists():
            continue
        done = subprocess.run([name, "-c", asks], capture_output=True, check=False)
        if done.returncode == 0:
            return name
    pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0, python3-gi)")


@contextmanager
def rtsp(python: str, port: int) -> Iterator[None]:
    with running(python, "-c", RTSP_SERVER, str(port)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


@pytest.mark.parametrize("transport", ["", "?tcp", "?udp"])
def test_rtsp(python_with_gstreamer: str, transport: str):
    port = free_port()
    heard = Heard()
    with rtsp(python_with_gstreamer, port):
        samples = first_samples(f"rtsp://127.0.0.1:{port}/live{transport}", 24, heard)
    check(samples, heard)


def test_an_rtsp_server_that_is_started_again(python_with_gstreamer: str):
    port = free_port()
    heard = Heard()
    follower = LiveStream(
        find_source(f"rtsp://127.0.0.1:{port}/live"),
        REQUEST,
        patience=40,
        memory=None,
        reporter=heard,
    )
    reading = follower.batches()
    with rtsp(python_with_gstreamer, port):
        samples = next(reading)
    time.sleep(1)
    with rtsp(python_with_gstreamer, port):
        while samples[-1].run == 0:
            samples += next(reading)
    reading.close()
    before, after = next(pair for pair in pairwise(samples) if pair[0].run != pair[1].run)
    assert after.arrived - before.arrived > 1
    assert after.time - before.time == pytest.approx(after.arrived - before.arrived)
    assert "connecting again" in heard.warnings[0]
