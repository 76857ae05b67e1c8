"""The shell scripts, run for real on tiny clips."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PACKAGE = SCRIPTS.parent
NETWORK = ("--layer", "layer1", "--weights", "random", "--size", "32", "--workers", "1")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six clips whose frames get lighter or darker."""
    root = tmp_path_factory.mktemp("data") / "light"
    for label, step in (("darker", -12), ("lighter", 12)):
        (root / label).mkdir(parents=True)
        for take in range(6):
            with av.open(str(root / label / f"{take}.mp4"), "w") as container:
                stream = container.add_stream("mpeg4", rate=10)
                stream.width = stream.height = 32
                stream.pix_fmt = "yuv420p"
                for i in range(8):
                    image = np.full((32, 32, 3), 120 + take + i * step, np.uint8)
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs keep their features, and `vidfuse` as a program of its own."""
    folder = tmp_path_factory.mktemp("place")
    program = folder / "vidfuse"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vidfuse "$@"\n')
    program.chmod(0o755)
    return folder


def run(place: Path, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {
        "PYTHONPATH": str(PACKAGE),
        "PYTHON": sys.executable,
        "VIDFUSE": str(place / "vidfuse"),
        "VIDFUSE_CACHE": str(place / "features"),
    }
    return subprocess.run(
        [str(part) for part in command],
        env=os.environ | own | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def model(dataset: Path, place: Path) -> Path:
    arguments = ("--backbone", "resnet18", *NETWORK, "--frames", "4", "--epochs", "2")
    done = run(place, place / "vidfuse", "train", dataset, *arguments, "--out", place / "run")
    assert done.returncode == 0, done.stderr
    return place / "run"


@pytest.mark.parametrize("name", ["batch_predict.sh", "extract_features.sh"])
def test_help_and_wrong_usage(place, name):
    shown = run(place, SCRIPTS / name, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: scripts/{name} ")
    wrong = run(place, SCRIPTS / name)
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", shown.stdout)


def test_batch_predict_goes_on_where_it_stopped(place, model, dataset, tmp_path):
    script, output = SCRIPTS / "batch_predict.sh", tmp_path / "out put.jsonl"
    videos = tmp_path / "videos"
    videos.mkdir()
    for index, path in enumerate(sorted(dataset.glob("*/*.mp4"))[:4]):
        shutil.copy(path, videos / f"clip {index}.mp4")
    (videos / "broken.mp4").write_bytes(b"no video")
    (videos / "notes.txt").touch()

    first = run(place, script, videos, output, "--model", model)
    assert first.returncode == 1
    assert "5 videos to do: 4 predicted, 1 failed (0 were done before)" in first.stderr
    records = [json.loads(line) for line in output.open()]
    assert [Path(each["path"]).name for each in records] == [f"clip {i}.mp4" for i in range(4)]
    failure = json.loads(Path(f"{output}.failed").read_text())
    assert failure["path"].endswith("broken.mp4")

    # Torn as by a power cut, with one video mended.
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:3]) + lines[3][:20])
    shutil.copy(videos / "clip 0.mp4", videos / "broken.mp4")
    second = run(place, script, videos, output, "--model", model)
    assert second.returncode == 0
    assert "2 videos to do: 2 predicted, 0 failed (3 were done before)" in second.stderr
    assert len([json.loads(line) for line in output.open()]) == 5
    assert not Path(f"{output}.failed").exists()

    third = run(place, script, videos, output, "--model", model)
    assert third.returncode == 0
    assert "Nothing to do: 5 videos" in third.stderr


def test_batch_predict_reads_a_list_and_passes_exit_codes_on(place, model, dataset, tmp_path):
    script, output = SCRIPTS / "batch_predict.sh", tmp_path / "out.jsonl"
    listed = tmp_path / "list.txt"
    clip = next(dataset.glob("*/*.mp4"))
    listed.write_text(f"{clip}\r\n\n{clip}\n")
    done = run(place, script, listed, output, "--model", model)
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 videos to do: 1 predicted" in done.stderr
    wrong = run(place, script, listed, tmp_path / "other.jsonl", "--model", tmp_path / "none")
    assert wrong.returncode == 2
    assert "no such model" in wrong.stderr
    assert run(place, script, tmp_path / "none", output).returncode == 2


def test_extract_features_writes_arrays(place, dataset, tmp_path):
    script, out = SCRIPTS / "extract_features.sh", tmp_path / "features"
    done = run(place, script, dataset, out, *NETWORK, "--layer", "stage1", FRAMES="4")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((out / "index.csv").open()))
    assert len(rows) == 12
    assert np.load(out / rows[0]["file"]).shape == (4, 24)  # of the default encoder
    wrong = run(place, script, dataset, out, BACKBONE="resnet81")
    assert wrong.returncode == 2
    assert "resnet18" in wrong.stderr
