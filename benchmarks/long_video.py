"""Time and memory of timelines of long videos, beside decoding alone and the plain way.

    python benchmarks/long_video.py CLIPS --out FOLDER [--only PART …] [--repeats N] [--minutes N]

The videos of the folder CLIPS are joined to one of 640 × 360 pixels and 25 frames per second, H.264
with a key frame at least every ten seconds, which is repeated until it is as long as is wanted.
Parts:

speed     Minutes of two cores for an hour: ``predict --timeline`` with nothing in the cache,
          decoding of all frames alone, and the plain way: ffmpeg cuts overlapping windows out of
          three minutes, each a file, and ``predict`` has them all.
memory    Peak memory of ``predict --timeline`` on three minutes and on three hours, of all its
          processes together.

Needs ``pip install -e ".[bench]"``, and ffmpeg for the plain way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import psutil
from fusion_zoo import table

from vidfuse.data.files import is_video

WIDTH, HEIGHT, FPS = 640, 360, 25
LOOP = 180.0  # seconds of the video that is repeated
CORES = 2
SAMPLES = Path(__file__).parents[1] / "sample_data"
VIDFUSE = (sys.executable, "-m", "vidfuse")
WINDOW, STEP = 3.2, 0.8  # seconds: 16 frames, 5 a second, of which four windows see each
LOOKS = 0.1  # seconds from one look at memory to the next


@dataclass(frozen=True)
class Cost:
    """The cost of a command: wall-clock seconds, and bytes of memory at the peak."""

    seconds: float
    peak: int


def ran(*words: str | Path) -> Cost:
    """Run a command on two cores to its end, and watch its memory."""
    began = time.monotonic()
    peak = 0
    with subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(LOOKS)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: exit code {process.returncode}")
    return Cost(time.monotonic() - began, peak)


def memory_of(number: int) -> int:
    """Bytes that a process and its children hold; what they share counts once for each."""
    total = 0
    try:
        family = [psutil.Process(number)]
        family += family[0].children(recursive=True)
    except psutil.Error:
        return 0
    for each in family:
        try:
            total += each.memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return total


# The videos


def loop(clips: Path, target: Path) -> Path:
    """Write the first three minutes of clips, one behind the other."""
    if target.exists():
        return target
    partial = target.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        options = {"crf": "23", "preset": "veryfast", "g": str(10 * FPS)}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        frames = 0
        for path in sorted(each for each in clips.rglob("*") if is_video(each)):
            with av.open(str(path)) as source:
                for frame in source.decode(video=0):
                    if frames < LOOP * FPS:
                        pixels = frame.reformat(WIDTH, HEIGHT, "rgb24").to_ndarray()
                        image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                        container.mux(stream.encode(image))
                        frames += 1
            if frames >= LOOP * FPS:
                break
        container.mux(stream.encode())
    partial.rename(target)
    return target


def repeated(source: Path, target: Path, times: int) -> Path:
    """Write a video so many times into one file, as it is."""
    if target.exists():
        return target
    partial = target.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as out:
        stream = None
        for turn in range(times):
            with av.open(str(source)) as container:
                if stream is None:
                    stream = out.add_stream_from_template(container.streams.video[0])
                for packet in container.demux(video=0):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    later = turn * round(LOOP / packet.time_base)
                    packet.dts, packet.pts = packet.dts + later, packet.pts + later
                    packet.stream = stream
                    out.mux(packet)
    partial.rename(target)
    return target


def model_of(folder: Path) -> Path:
    """A small model of clips with the bundled encoder; that it knows little takes no time."""
    run = folder / "model"
    if not (run / "model.safetensors").exists():
        where = ("--out", run, "--cache", folder / "cache")
        ran(*VIDFUSE, "train", SAMPLES, "--epochs", "3", *where)
    return run


# What is measured


def timeline(video: Path, model: Path) -> Cost:
    """The timeline of a video, with nothing in the cache."""
    how = ("--window", f"{WINDOW}", "--step", f"{STEP}", "--no-cache")
    return ran(*VIDFUSE, "predict", video, "--timeline", "--model", model, *how)


def decode(video: Path) -> Cost:
    """All frames of a video, decoded by two threads and thrown away."""
    code = (
        "import av, sys\n"
        "with av.open(sys.argv[1]) as container:\n"
        f"    container.streams.video[0].codec_context.thread_count = {CORES}\n"
        "    container.streams.video[0].thread_type = 'AUTO'\n"
        "    print(sum(1 for _ in container.decode(video=0)))\n"
    )
    return ran(sys.executable, "-c", code, video)


def plain(video: Path, model: Path, folder: Path) -> Cost:
    """Windows of a video, cut out by ffmpeg and then classified, each decoded by itself."""
    windows = folder / "windows"
    shutil.rmtree(windows, ignore_errors=True)
    windows.mkdir()
    began, count = time.monotonic(), int((LOOP - WINDOW) / STEP) + 1
    for number in range(count):
        cut = ("-ss", f"{number * STEP:.3f}", "-i", video, "-t", f"{WINDOW}", "-an")
        how = ("-preset", "veryfast", "-threads", CORES, windows / f"{number:05}.mp4")
        words = ("ffmpeg", "-nostdin", "-loglevel", "error", "-y", *cut, *how)
        subprocess.run([str(word) for word in words], check=True)  # `ran` waits for its next look
    cutting = time.monotonic() - began
    cost = ran(*VIDFUSE, "predict", windows, "--model", model, "--no-cache")
    shutil.rmtree(windows)
    return Cost(cutting + cost.seconds, cost.peak)


def speed(folder: Path, minutes: int, repeats: int) -> str:
    """Minutes for an hour of video, each way after the other in every repeat."""
    model, source = model_of(folder), folder / "loop.mp4"
    video = repeated(source, folder / f"{minutes}.mp4", round(minutes * 60 / LOOP))
    scale = 60 / minutes / 60
    times: dict[str, list[float]] = {"predict --timeline": [], "decoding alone": []}
    if shutil.which("ffmpeg"):
        times["windows cut by ffmpeg"] = []
    for _ in range(repeats):
        times["predict --timeline"].append(timeline(video, model).seconds * scale)
        times["decoding alone"].append(decode(video).seconds * scale)
        if shutil.which("ffmpeg"):
            found = plain(source, model, folder)
            times["windows cut by ffmpeg"].append(found.seconds * 60 / LOOP)
    first = times["predict --timeline"]
    body = []
    for name, values in times.items():
        ratios = [value / own for value, own in zip(values, first, strict=True)]
        spread = f"{min(values):.1f} to {max(values):.1f}"
        body.append((name, f"{statistics.median(values):.1f}", spread,
                     f"{statistics.median(ratios):.2f}"))  # fmt: skip
    header = ("", "minutes for an hour, median", "range", "of predict --timeline, median")
    title = f"## An hour of {WIDTH} × {HEIGHT} at {FPS} fps, {CORES} cores, {repeats} repeats"
    return "\n".join([title, "", *table(header, body), ""])


def memory(folder: Path, _minutes: int, _repeats: int) -> str:
    """Peak memory of a short and of a long video, once."""
    model, source = model_of(folder), folder / "loop.mp4"
    peaks = {}
    for minutes in (3, 180):
        video = repeated(source, folder / f"{minutes}.mp4", round(minutes * 60 / LOOP))
        peaks[minutes] = timeline(video, model).peak
    body = [(f"{minutes} minutes", f"{peak / 2**20:.0f} MiB", f"{peak / peaks[3]:.2f}")
            for minutes, peak in peaks.items()]  # fmt: skip
    return "\n".join(["## Memory", "", *table(("video", "peak", "of 3 minutes"), body), ""])


PARTS: dict[str, Callable[[Path, int, int], str]] = {"speed": speed, "memory": memory}


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=int, default=15)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    loop(arguments.clips, arguments.out / "loop.mp4")
    for part in arguments.only:
        text = PARTS[part](arguments.out, arguments.minutes, arguments.repeats)
        (arguments.out / f"{part}.md").write_text(text, encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()
