"""Reading a video in every way that vidfuse can, and comparing with the ffmpeg program."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from reference import TOLERANCE, Reference, reference

from vidfuse.errors import InputError
from vidfuse.video.decoder import Reader, open_video, wrong_frames
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool
from vidfuse.video.pyav_backend import PyAVReader
from vidfuse.video.sampling import FrameTimes

Read = tuple[list[np.ndarray], np.ndarray]


def cases(times: np.ndarray) -> dict[str, np.ndarray]:
    """The times to ask for, by name."""
    count = len(times)
    middle = max(0, count // 2 - 8)
    return {
        "first": times[:1],
        "last": times[-1:],
        "single": times[count // 2 : count // 2 + 1],
        "two far apart": times[[0, -1]],
        "16 spread": times[((np.arange(16) + 0.5) * count / 16).astype(int)],
        "dense": times[middle : middle + 16],
        "all": times,
    }


def read_every_case(
    open_reader: Callable[[], Reader], times: np.ndarray
) -> Iterator[tuple[str, np.ndarray, Read]]:
    """Each case with a fresh reader, then one reader for several, at last back at the beginning."""
    asked = cases(times)
    for name, wanted in asked.items():
        with closing(open_reader()) as reader:
            yield f"fresh reader, {name}", wanted, reader.read(wanted)
    with closing(open_reader()) as reader:
        for name in ("last", "first", "16 spread", "two far apart", "dense", "single", "first"):
            yield f"reused reader, {name}", asked[name], reader.read(asked[name])


def disagreements(path: Path, keep_bytes: int | None, tolerance: float = TOLERANCE) -> list[str]:
    """What ``PyAVReader`` reads differently from the ffmpeg program.

    Args:
        path: The video.
        keep_bytes: As for the reader; 0 reads through the index and seeks.
        tolerance: Largest mean absolute difference allowed.
    """
    expected = reference(str(path))
    settings: dict[str, Any] = {} if keep_bytes is None else {"keep_bytes": keep_bytes}

    def open_reader() -> Reader:
        return PyAVReader(str(path), **settings)

    return _compare(expected, read_every_case(open_reader, expected.times), tolerance)


def _compare(
    expected: Reference, reads: Iterator[tuple[str, np.ndarray, Read]], tolerance: float
) -> list[str]:
    wrong = []
    for name, wanted, (pixels, times) in reads:
        wrong += [f"{name}: {text}" for text in expected.problems(pixels, times, wanted, tolerance)]
    return wrong


def wrong_frame_times(path: Path, frame_times: FrameTimes) -> list[str]:
    """How frame times differ from the times at which the ffmpeg program shows frames."""
    expected = reference(str(path))
    if len(frame_times.times) != len(expected.times):
        return [f"{len(frame_times.times)} frames instead of {len(expected.times)}"]
    off = np.abs(frame_times.times - expected.times).max()
    wrong = [f"times differ by up to {off:.4f} s"] if off > expected.half_interval else []
    if frame_times.end <= frame_times.times[-1]:
        wrong.append(f"ends at {frame_times.end:.4f} s, before its last frame")
    return wrong


def pool_disagreements(pool: DecodePool, path: Path, tolerance: float = TOLERANCE) -> list[str]:
    """What a pool of decode processes reads differently from the ffmpeg program.

    Raises:
        InputError: The file is refused.
    """
    expected = reference(str(path))
    count = len(expected.times)
    asked = {
        "first": ("stride:1", 1, None),
        "last": ("stride:1", 1, float(expected.times[-1])),
        "single": ("uniform", 1, None),
        "two far apart": (f"stride:{max(1, count - 1)}", 2, None),
        "16 spread": ("uniform", 16, None),
        "dense": ("dense", 16, None),
        "all": ("stride:1", count + 9, None),
    }
    wrong = []
    for name, (sampling, frames, start) in asked.items():
        got = pool.submit(FrameRequest(str(path), sampling, frames, start)).result()
        found = expected.problems(list(got.pixels), got.times, None, tolerance)
        missing = min(frames, 1 if name == "last" else count) - len(got.times)
        if missing > 0:
            found.append(f"{missing} frames too few")
        wrong += [f"{got.decoder}, {name}: {text}" for text in found]
    return wrong


class BackendProcess:
    """Reads with decord or torchcodec in a process of its own, as decoders do not get along."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        spawn = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(1, mp_context=spawn)

    def disagreements(
        self, path: Path, tolerance: float = TOLERANCE, may_refuse: bool = True
    ) -> list[str]:
        """What it, given the frame times of PyAV, reads differently from the ffmpeg program."""
        try:
            return self._disagreements(path, tolerance)
        except InputError as error:
            return [] if may_refuse and self.backend in error.reason else [f"refused: {error}"]

    def _disagreements(self, path: Path, tolerance: float) -> list[str]:
        with closing(PyAVReader(str(path))) as reader:
            frame_times, obstacle = reader.index(), reader.obstacle(self.backend)
        if obstacle is not None:
            raise wrong_frames(str(path), self.backend, obstacle)
        arguments = (str(path), self.backend, frame_times, reference(str(path)), tolerance)
        wrong = self.executor.submit(_backend_disagreements, *arguments).result(timeout=240)
        if isinstance(wrong, str):
            raise InputError(path, wrong)
        return wrong

    def close(self) -> None:
        self.executor.shutdown()


def _backend_disagreements(
    path: str, backend: str, frame_times: FrameTimes, expected: Reference, tolerance: float
) -> list[str] | str:
    """The list of disagreements, or why the backend refuses the file."""
    try:
        reads = read_every_case(lambda: open_video(path, backend, frame_times), expected.times)
        return _compare(expected, reads, tolerance)
    except InputError as error:
        return error.reason
