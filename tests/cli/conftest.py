"""A tiny dataset, a model trained on it, and a way to run the program as a process."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

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


def write_moving_square(path: Path, step: int, seed: int) -> Path:
    """Ten pictures of 48x48 pixels in which a square moves by ``step`` pixels."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    top = int(np.random.default_rng(seed).integers(0, 32))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        for i in range(10):
            picture = np.full((48, 48, 3), 40 + seed % 20, np.uint8)
            left = (20 + i * step) % 40
            picture[top : top + 12, left : left + 12] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of two classes, two clips each, with a manifest."""
    root = tmp_path_factory.mktemp("data") / "squares"
    rows = []
    for index, group in enumerate(GROUPS):
        for label, step in zip(CLASSES, (-4, 4), strict=True):
            for take in range(2):
                name = f"{label}/{group}_{take}.mp4"
                write_moving_square(root / name, step, seed=10 * index + take)
                rows.append((name, label, group))
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return root


@pytest.fixture(scope="session")
def clips(dataset: Path) -> list[Path]:
    return sorted(dataset.glob("*/*.mp4"))


@pytest.fixture(scope="session")
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all tests share, so that few of them decode anything."""
    return tmp_path_factory.mktemp("features")


def environment(feature_cache: Path, extra: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIDFUSE_")}
    coverage = ("NO_COLOR", "FORCE_COLOR", "PYTHONPATH")
    kept = {name: value for name, value in kept.items() if name not in coverage}
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
        timeout=120,
        check=False,
    )
    text = (os.fsdecode(done.stdout), os.fsdecode(done.stderr))
    return Answer(done.returncode, *text)


@pytest.fixture
def vidfuse(feature_cache: Path, tmp_path: Path) -> Vidfuse:
    """Runs the program in ``tmp_path``: ``vidfuse("predict", "a.mp4", stdin=..., env=...)``."""

    def run(*arguments: str | Path, cwd: Path | None = None, **options: object) -> Answer:
        return run_vidfuse(feature_cache, *arguments, cwd=cwd or tmp_path, **options)  # type: ignore[arg-type]

    return run


@dataclass(frozen=True)
class Trained:
    """A finished training run: its folder, and what the program printed."""

    run: Path
    answer: Answer

    @property
    def model(self) -> Path:
        return self.run / "model.safetensors"


@pytest.fixture(scope="session")
def trained(
    dataset: Path, feature_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    run = tmp_path_factory.mktemp("trained") / "run"
    arguments = ("train", dataset, *TINY, "--out", run)
    answer = run_vidfuse(feature_cache, *arguments, cwd=run.parent)
    assert answer.code == 0, answer.err
    return Trained(run, answer)


def interrupt(
    feature_cache: Path, *arguments: str | Path, cwd: Path, ready: Callable[[], bool]
) -> Answer:
    """Run the program and press Ctrl-C as soon as ``ready`` says so."""
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
        for _ in range(600):
            if ready() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Answer(process.returncode, os.fsdecode(out), os.fsdecode(err))
