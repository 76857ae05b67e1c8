"""The README's own commands and Python, run on generated clips."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.numpy import load_file

import vidfuse

README = Path(__file__).resolve().parents[1] / "README.md"
SNIPPET = re.compile(r"<!-- runs in tests -->\n```(bash|python)\n(.*?)```", re.DOTALL)
# What stands in for pretrained weights, which a test must not download.
TINY = {"weights": "random", "size": 32, "frames": 4, "epochs": 2}


INSTALL = "pip install . && "  # what a test leaves out


def snippets(language: str) -> list[str]:
    """What the README runs on a folder of one's own."""
    found = [text for kind, text in SNIPPET.findall(README.read_text("utf-8")) if kind == language]
    assert found
    return [text for text in found if INSTALL not in text]


def run(commands: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run commands in bash, where ``vidfuse`` is this one."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "vidfuse").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vidfuse "$@"\n')
    (programs / "vidfuse").chmod(0o755)
    named = {f"VIDFUSE_{name.upper()}": str(value) for name, value in settings.items()}
    here = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "VIDFUSE_WORKERS": "1"}
    return subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", commands],
        env=os.environ | {"PYTHONPATH": str(README.parent)} | named | here,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `videos` (two classes), `ucf101` (the same), `new_clips`, `holiday.mp4`."""
    for label, step in (("jump", -12), ("run", 12)):
        for take in range(8):
            write_clip(tmp_path / "videos" / label / f"{take}.mp4", take, step)
    (tmp_path / "ucf101").symlink_to("videos")
    for copy in ("new_clips/a.mp4", "new_clips/more/b.mp4", "holiday.mp4"):
        (tmp_path / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "videos/run/1.mp4", tmp_path / copy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_clip(path: Path, take: int, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(8):
            image = np.full((32, 32, 3), 120 + take + i * step, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@needs_bash
def test_the_first_command_trains_and_predicts(tmp_path, monkeypatch):
    """With the settings of a newcomer: the bundled network, and all of the sample data."""
    (tmp_path / "sample_data").symlink_to(README.parent / "sample_data")
    monkeypatch.chdir(tmp_path)
    (command,) = [
        text for kind, text in SNIPPET.findall(README.read_text("utf-8")) if INSTALL in text
    ]
    done = run(command.replace(INSTALL, ""), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    path, label, score = done.stdout.splitlines()[-1].split()
    assert path.startswith("sample_data/")
    assert label in {folder.name for folder in (README.parent / "sample_data").iterdir()}
    assert 0 < float(score) <= 1
    tensors = load_file(tmp_path / "runs/sample/model.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"head"}, "not the backbone"


@needs_bash
def test_the_commands_run(folder):
    done = run("\n".join(snippets("bash")), folder, **TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "runs/small-1/model.safetensors").is_file()
    assert (folder / "features/index.csv").is_file()


def test_the_command_for_the_tests_is_what_ci_runs():
    (command,) = re.findall(r'pip install -e "\.\[test\]" && (pytest.*)', README.read_text("utf-8"))
    assert f"check {command}" in (README.parent / ".ci" / "run").read_text("utf-8")


@pytest.mark.usefixtures("folder")
def test_the_python_runs(monkeypatch, capsys):
    train = vidfuse.train
    monkeypatch.setattr(
        vidfuse, "train", lambda *a, **k: train(*a, **k | TINY | {"workers": 1}), raising=False
    )
    for text in snippets("python"):
        exec(compile(text, str(README), "exec"), {})
    assert "holiday.mp4" in capsys.readouterr().out


def test_the_files_that_it_names_exist():
    links = re.findall(r"\]\(([\w./-]+)\)", README.read_text("utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_figure_is_what_its_script_draws():
    script = README.parent / "scripts" / "make_figure.py"
    drawn = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert drawn.stdout == (README.parent / "docs/img/pipeline.svg").read_text("utf-8")
