"""Streams for tests: MPEG-TS made quickly, and servers of it on this machine."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import imageio_ffmpeg

PACKET = 188  # bytes of a packet of MPEG-TS
FPS = 25


def write_stream(path: Path, seconds: float = 4, *, first: float = 0, audio: bool = False) -> Path:
    """H.264 with B-frames and a key frame every second, whose time begins at ``first``."""
    source = f"-f lavfi -i testsrc2=size=96x64:rate={FPS}:duration={seconds}"
    sound = f"-f lavfi -i sine=duration={seconds}" if audio else ""
    encoder = f"-c:v libx264 -preset ultrafast -bf 2 -g {FPS} -pix_fmt yuv420p -threads 1"
    end = f"-muxdelay 0 -output_ts_offset {first} -f mpegts"
    words = f"-v error -y {source} {sound} {encoder} {end}".split()
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *words, str(path)], check=True)
    return path


@contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """Have bytes come through a pipe on standard input, which then ends."""
    reading, writing = os.pipe()
    before = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        thread.join(10)


@dataclass
class Server:
    """Serves contents in real time: the first to the first who asks, and the last to all others.

    Attributes:
        contents: Bytes of MPEG-TS; empty ones are a connection that stays silent.
        rate: Bytes per second; None is as fast as they are taken.
        endless: Whether the last content is sent again and again.
        sized: Whether each content is announced with its size, as of a file.
        asked: How often somebody connected.
    """

    contents: list[bytes]
    rate: float | None = None
    endless: bool = False
    sized: bool = False
    asked: int = 0
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def send(self, handler: BaseHTTPRequestHandler) -> None:
        number = min(self.asked, len(self.contents) - 1)
        content, last = self.contents[number], number == len(self.contents) - 1
        self.asked += 1
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        if self.sized:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if not content:
            self.closing.wait()
        began, sent = time.monotonic(), 0
        size = 7 * PACKET
        while not self.closing.is_set():
            for start in range(0, len(content), size):
                handler.wfile.write(content[start : start + size])
                sent += size
                if self.rate is not None:
                    late = began + sent / self.rate - time.monotonic()
                    if late > 0 and self.closing.wait(late):
                        return
            if not (last and self.endless):
                return


@contextmanager
def serve(
    *contents: bytes, rate: float | None = None, endless: bool = False, sized: bool = False
) -> Iterator[Server]:
    """A server on the loopback interface; its ``url`` is what to connect to."""
    served = Server(list(contents), rate, endless, sized)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                served.send(self)

        def log_message(self, format: str, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}/stream.ts"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        served.closing.set()
        server.shutdown()
        server.server_close()
