"""Runs of jobs through one engine do not mix, whatever becomes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from clips import SPEC, network

from vidfuse.backbones.engine import TorchEngine
from vidfuse.data.clip import Clip
from vidfuse.features.encode import Encoder, Encoding, Job
from vidfuse.video.frames import FrameRequest, Frames


def job(name: str, frames: int) -> Job:
    rng = np.random.default_rng(len(name) + frames)
    pixels = rng.integers(0, 256, (frames, 32, 32, 3), np.uint8)
    read = Frames(
        pixels=pixels,
        times=np.arange(frames, dtype=np.float64),
        start=0.0,
        end=float(frames),
        count=frames,
        width=32,
        height=32,
        decoder="pyav",
    )
    return Job([Clip(Path(name))], name, FrameRequest(name, "uniform", frames), frames=read)


def begin(encoder: Encoder) -> Encoding:
    return encoder.begin([SPEC.grid], 64, many=False)


def test_runs_side_by_side_keep_their_jobs() -> None:
    encoder = Encoder(lambda: TorchEngine(network("layer1")))
    runs = {"a": begin(encoder), "b": begin(encoder)}
    done: dict[str, list[str]] = {"a": [], "b": []}
    for number in range(1, 6):
        for name, run in runs.items():
            done[name] += [each.key for each in run.add(job(f"{name}{number}", number))]
    for name, run in runs.items():
        done[name] += [each.key for each in run.flush()]
        run.end()
    assert done == {name: [f"{name}{number}" for number in range(1, 6)] for name in runs}


def test_a_run_that_is_given_up_leaves_nothing_to_the_next() -> None:
    encoder = Encoder(lambda: TorchEngine(network("layer1")))
    given_up = begin(encoder)
    given_up.add(job("first", 3))
    later = begin(encoder)
    given_up.end()
    later.add(job("second", 2))
    assert [each.key for each in later.flush()] == ["second"]
    later.end()
