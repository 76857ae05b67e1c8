"""vidfuse in a process that was forked, where torch's threads are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vidfuse

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
PROGRAM = """
import os, sys, warnings
import vidfuse
from typing import Any
from vidfuse.errors import UserError

warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
model, cache, *clips = sys.argv[1:]

def predict(paths):
    return vidfuse.predict(paths, model=model, cache=cache, workers=1)

print([record.ok for record in predict(clips[:1])], flush=True)
begun = predict(iter(clips))
next(begun)
loaded = vidfuse.load_model(model, cache=cache, workers=1, use_cache=False)
loaded.predict(clips[0])
if os.fork() == 0:
    {child}
    os._exit(0)
os.wait()
"""
PACKAGE = str(Path(vidfuse.__file__).parents[1])
DEADLINE = 240  # seconds; a child that hangs is ended with the test's process group


def run(child: str, dataset: Path, cache: str, out: Path) -> str:
    vidfuse.train(dataset, **CHEAP, epochs=1, workers=1, cache=cache, out=str(out))
    clips = sorted(map(str, dataset.rglob("*.mkv")))[:20]  # so many that all threads are at work
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(child=child), str(out), cache, *clips],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": PACKAGE},
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=DEADLINE)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)


def test_a_prediction_in_a_fork_is_answered(
    dataset: Path, shared_cache: str, tmp_path: Path
) -> None:
    child = "print(sum(record.ok for record in predict(clips)), flush=True)"
    assert run(child, dataset, shared_cache, tmp_path / "run").split() == ["[True]", "20"]


def test_a_loaded_model_predicts_in_a_fork(
    dataset: Path, shared_cache: str, tmp_path: Path
) -> None:
    child = "print(loaded.predict(clips[1]).ok, flush=True)"
    assert run(child, dataset, shared_cache, tmp_path / "run").split() == ["[True]", "True"]


def test_records_that_another_process_began_are_refused(
    dataset: Path, shared_cache: str, tmp_path: Path
) -> None:
    child = """
    try:
        next(begun)
    except UserError as error:
        print(error.message, flush=True)
    """
    answer = run(child, dataset, shared_cache, tmp_path / "run")
    assert "begun in another process" in answer
