"""Time of each decoder by codec, frame size and number of frames: the table behind ``auto``.

    python benchmarks/decoders.py [CLIP ...] [--generated] [--frames 1,16,all] [--repeats 5] \
        [--decoders pyav,decord,torchcodec] [--cpu] [--out result.json]

Each clip is read through one decode process of each decoder, warmed up before, at 224x224 pixels.
The decoders take turns in every repeat, so that a busy machine slows all of them; ratios of medians
are printed and mean something where times do not. Where others use the machine heavily even those
are noise: with ``--cpu`` (Linux) the time is what the decode processes spent on a core.

Frames are compared with PyAV's: a decoder that refuses a clip is marked so, and one that gives
other frames is marked `differs`. ``--generated`` adds clips of several codecs and sizes made with
the ffmpeg program (pip install imageio-ffmpeg).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import av
import numpy as np

from vidfuse.data.files import expand_inputs
from vidfuse.errors import UserError
from vidfuse.video.backends import POLICIES
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool

ALL = 100_000  # frames: more than any clip here has
SIDE = 224  # pixels
# Largest mean difference between two decoders' conversions of one frame, of 255.
SAME = 4.0
CODECS = {
    "mpeg4": ("avi", "-c:v mpeg4 -q:v 4"),
    "h264": ("mp4", "-c:v libx264 -preset veryfast -pix_fmt yuv420p"),
    "hevc": ("mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none"),
    "vp9": ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 2M"),
}
SIZES = ("320x240", "1280x720")
SECONDS = 5


@dataclass
class Row:
    """One clip, read for one number of frames by each decoder.

    Attributes:
        clip: Name of the file.
        codec: Name of its codec.
        size: ``WIDTHxHEIGHT``.
        wanted: Number of frames asked for, or ``all``.
        seconds: Decoder → seconds of each repeat.
        notes: Decoder → why its figures do not count.
    """

    clip: str
    codec: str
    size: str
    wanted: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def speed(self, decoder: str) -> float | None:
        """How many times as fast as PyAV, by the medians; None where it does not count."""
        if decoder in self.notes or not self.seconds.get(decoder):
            return None
        return median(self.seconds["pyav"]) / median(self.seconds[decoder])


def main() -> None:
    arguments = parse()
    rows: list[Row] = []
    with ExitStack() as stack:
        pools = open_pools(stack, arguments.decoders)
        clips = [clip for clip in expand_inputs(arguments.clips) if isinstance(clip, Path)]
        if arguments.generated:
            clips += generate(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for clip in clips:
            for wanted in arguments.frames:
                clock = cpu_clock if arguments.cpu else wall_clock
                rows.append(measure(pools, clip, wanted, arguments.repeats, clock))
                print(table(rows[-1:], list(pools), header=False), file=sys.stderr, flush=True)
    print(table(rows, list(pools)))
    if arguments.out:
        report = {"machine": machine(), "repeats": arguments.repeats, "cpu": arguments.cpu}
        report["rows"] = [asdict(row) | {"speed": speeds(row, pools)} for row in rows]
        Path(arguments.out).write_text(json.dumps(report, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="file or folder")
    parser.add_argument("--generated", action="store_true", help="clips of several codecs too")
    parser.add_argument("--frames", type=words, default=["1", "16", "all"])
    parser.add_argument("--decoders", type=words, default=["pyav", "decord", "torchcodec"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="time on a core instead of on the clock")
    parser.add_argument("--out", help="JSON file to write")
    arguments = parser.parse_args()
    if not (arguments.clips or arguments.generated):
        parser.error("name clips, or use --generated")
    if "pyav" not in arguments.decoders or not set(arguments.decoders) <= POLICIES.keys():
        parser.error(f"--decoders takes pyav and any of {', '.join(POLICIES)}")
    return arguments


def words(text: str) -> list[str]:
    return text.split(",")


def open_pools(stack: ExitStack, decoders: list[str]) -> dict[str, DecodePool]:
    """A pool of one process for each decoder that is installed."""
    pools = {}
    for name in decoders:
        try:
            pools[name] = stack.enter_context(DecodePool(name, workers=1))
        except UserError as error:
            print(f"left out: {error.message}", file=sys.stderr)
    return pools


def generate(folder: Path) -> list[Path]:
    """Clips of moving test patterns with noise, one for each codec and size."""
    from imageio_ffmpeg import get_ffmpeg_exe

    clips = []
    for size in SIZES:
        source = f"testsrc2=size={size}:rate=25:duration={SECONDS},noise=alls=8:allf=t"
        for codec, (suffix, options) in CODECS.items():
            clips.append(folder / f"{codec}_{size}.{suffix}")
            words = [get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source]
            subprocess.run([*words, *options.split(), clips[-1]], check=True)
    return clips


def wall_clock(_pool: DecodePool) -> float:
    """Seconds."""
    return time.perf_counter()


def cpu_clock(pool: DecodePool) -> float:
    """Seconds that the pool's decode processes spent on a core so far, all threads that ever were.

    The number of another process's clock is that of ``clock_getcpuclockid(3)`` on Linux.
    """
    pids = [decoding.process.pid for decoding in pool.running]
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def measure(
    pools: dict[str, DecodePool],
    clip: Path,
    wanted: str,
    repeats: int,
    clock: Callable[[DecodePool], float] = wall_clock,
) -> Row:
    """Read a clip several times with each decoder, by turns."""
    with av.open(str(clip)) as container:
        context = container.streams.video[0].codec_context
        row = Row(clip.name, context.name, f"{context.width}x{context.height}", wanted)
    count = ALL if wanted == "all" else int(wanted)
    rule = "stride:1" if wanted == "all" else "uniform"
    request = FrameRequest(str(clip), rule, count, size=SIDE)
    expected = pools["pyav"].submit(request).result()
    for name, pool in pools.items():  # also warms up
        try:
            found = pool.submit(request).result()
        except UserError as error:
            row.notes[name] = f"refused: {error.message}"
        else:
            row.notes |= {name: "differs"} if differs(found, expected) else {}
    able = [name for name in pools if name not in row.notes]
    for turn in range(repeats):
        for name in able[turn % len(able) :] + able[: turn % len(able)]:
            started = clock(pools[name])
            pools[name].submit(request).result()
            row.seconds.setdefault(name, []).append(clock(pools[name]) - started)
    return row


def differs(found: Frames, expected: Frames) -> bool:
    """Whether any frame is another one than PyAV's."""
    if found.pixels.shape != expected.pixels.shape:
        return True
    far = np.abs(found.pixels.astype(np.int16) - expected.pixels).mean((1, 2, 3))
    return bool(far.max() > SAME)


def speeds(row: Row, pools: dict[str, DecodePool]) -> dict[str, float | None]:
    return {name: row.speed(name) for name in pools}


def table(rows: list[Row], decoders: list[str], header: bool = True) -> str:
    """Markdown: PyAV's median in milliseconds, and how many times as fast the others are."""
    others = [name for name in decoders if name != "pyav"]
    lines = [
        ["clip", "codec", "size", "frames", "pyav, ms", *others],
        ["---"] * (5 + len(others)),
    ]
    for row in rows:
        milliseconds = f"{1000 * median(row.seconds['pyav']):.1f}"
        cells = [row.clip, row.codec, row.size, row.wanted, milliseconds]
        lines.append(cells + [shown(row, name) for name in others])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines[0 if header else 2 :])


def shown(row: Row, decoder: str) -> str:
    speed = row.speed(decoder)
    return row.notes[decoder].partition(":")[0] if speed is None else f"{speed:.2f}x"


def machine() -> dict[str, str | None]:
    """What the figures depend on."""
    found: dict[str, str | None] = {"platform": platform.platform(), "python": sys.version}
    for name in ("av", "decord", "torchcodec", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    main()
