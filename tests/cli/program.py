"""The program as a process, and clips that are quickly made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PATIENCE = 270  # seconds, however busy the machine is; pytest itself waits a little longer
CLASSES = ("left", "right")
GROUPS = ("g01", "g02", "g03")
# The cheapest network there is: what is tested is the command line.
NETWORK = ("--backbone", "resnet18", "--layer", "layer1", "--weights", "random", "--size", "32")
TINY = (*NETWORK, "--frames", "4", "--epochs", "3", "--workers", "1")


@dataclass(frozen=True)
class Answer:
    """What a process left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Vidfuse = Callable[..., Answer]


def write_moving_square(
    path: Path, step: int, seed: int, *, frames: int = 10, turn: int = 1000
) -> Path:
    """Frames of 48x48 pixels in which a square moves by ``step`` pixels, and then back."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    top = int(np.random.default_rng(seed).integers(0, 32))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            image = np.full((48, 48, 3), 40 + seed % 20, np.uint8)
            left = (20 + (i if i < turn else 2 * turn - i) * step) % 40
            image[top : top + 12, left : left + 12] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def environment(feature_cache: Path, extra: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIDFUSE_")}
    ours = ("NO_COLOR", "FORCE_COLOR", "PYTHONPATH")
    kept = {name: value for name, value in kept.items() if name not in ours}
    package = str(Path(__file__).resolve().parents[2])
    return kept | {"VIDFUSE_CACHE": str(feature_cache), "PYTHONPATH": package} | extra


def run_vidfuse(
    feature_cache: Path,
    *arguments: str | Path,
    stdin: str | bytes = b"",
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "vidfuse", *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(feature_cache, env or {}),
        timeout=PATIENCE,
        check=False,
    )
    text = (os.fsdecode(done.stdout), os.fsdecode(done.stderr))
    return Answer(done.returncode, *text)


def interrupt(
    feature_cache: Path,
    *arguments: str | Path,
    cwd: Path,
    ready: Callable[[], bool],
    by: signal.Signals = signal.SIGINT,
) -> Answer:
    """Run the program and press Ctrl-C as soon as ``ready`` says so, or send another signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vidfuse", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(feature_cache, {}),
        # Ctrl-C is ignored where the test run itself was started in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        end = time.monotonic() + PATIENCE
        while not ready() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(by)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return Answer(process.returncode, os.fsdecode(out), os.fsdecode(err))
