"""The delay of `vidfuse predict --live`, on a video that is sent in real time again and again.

    python benchmarks/live.py VIDEO --model MODEL [--seconds 60] [--size 640x360] [--step 0.2]

The video is encoded once (H.264, 25 frames a second, a key frame every second, in MPEG-TS) and then
sent by FFmpeg as it plays, through a pipe and by HTTP on the loopback interface. The delay of a
decision is what its record says: from the arrival of the newest frame that it is made from. One
frame of that (40 ms) is the wait for the next one, which tells how long it was on screen, and some
more are what the decoder holds back of a stream with B-frames.
Decisions of the first five seconds are left out: by then FFmpeg has found out what it reads. `cpu`
is the share of one core, that of the process that decodes with it.

Prints a Markdown table. Needs ``pip install -e ".[test]"``.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
from fusion_zoo import table

SETTLING = 5.0  # seconds whose decisions are left out
FPS = 25
FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]


@dataclass(frozen=True)
class Measured:
    """Delays of a run in seconds, how many frames it left out, and CPU seconds per second."""

    delays: list[float]
    dropped: int
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--window", type=float)
    parser.add_argument("--step", type=float)
    arguments = parser.parse_args()
    options = [
        f"--{name}={value}" for name in ("window", "step") if (value := getattr(arguments, name))
    ]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        video = encode(arguments.video, arguments.size, Path(scratch) / "video.ts")
        for way in ("pipe", "http"):
            found = measure(video, way, [f"--model={arguments.model}", *options], arguments.seconds)
            p50, p95, most = np.percentile(found.delays, [50, 95, 100]) * 1000
            delays = tuple(f"{each:.0f}" for each in (p50, p95, most))
            rows.append(
                (way, str(len(found.delays)), *delays, str(found.dropped), f"{found.cpu:.2f}")
            )
    header = ("by", "decisions", "p50 ms", "p95 ms", "most ms", "frames left out", "cpu")
    print("\n".join(table(header, rows)))


def encode(video: str, size: str, target: Path) -> Path:
    width, _, height = size.partition("x")
    words = f"-vf scale={width}:{height} -r {FPS} -an -c:v libx264 -g {FPS} -pix_fmt yuv420p"
    subprocess.run([*FFMPEG, "-i", video, *words.split(), str(target)], check=True)
    return target


def measure(video: Path, way: str, options: Sequence[str], seconds: float) -> Measured:
    """Follow a stream for so many seconds."""
    send = [*FFMPEG, "-re", "-stream_loop", "-1", "-i", str(video), "-c", "copy", "-f", "mpegts"]
    follow = [sys.executable, "-m", "vidfuse", "predict", "--format", "jsonl", "--top", "1"]
    with ExitStack() as stack:
        url = "pipe:"
        if way == "http":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{free.getsockname()[1]}/stream.ts"
            send += ["-listen", "1"]
        sender = subprocess.Popen([*send, url], stdout=subprocess.PIPE)
        stack.callback(sender.kill)
        follower = subprocess.Popen(
            [*follow, "--live", url, *options],
            stdin=sender.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(follower.kill)
        delays: list[float] = []
        began, before = 0.0, 0.0
        assert follower.stdout is not None
        for line in follower.stdout:
            record = json.loads(line)
            if record["time"] < SETTLING:
                continue
            if not delays:
                began, before = time.monotonic(), cpu_of(follower.pid)
            delays.append(record["delay"])
            if time.monotonic() > began + seconds:
                break
        took, used = time.monotonic() - began, cpu_of(follower.pid) - before
        sender.kill()
        _, messages = follower.communicate(timeout=60)
    told = [line for line in messages.splitlines() if "frames left out: " in line]
    return Measured(delays, sum(int(line.rpartition(" ")[2]) for line in told), used / took)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in [process, *process.children(recursive=True)]]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    main()
