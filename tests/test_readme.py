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

import vidfuse

README = Path(__file__).resolve().parents[1] / "README.md"
SNIPPET = re.compile(r"<!-- runs in tests -->\n```(bash|python)\n(.*?)```", re.DOTALL)
# What stands in for pretrained weights, which a test must not download.
TINY = {"weights": "random", "layer": "layer1", "size": 32, "frames": 4, "epochs": 2}


def snippets(language: str) -> list[str]:
    found = [text for kind, text in SNIPPET.findall(README.read_text("utf-8")) if kind == language]
    assert found
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `videos` (two classes), `new_clips` and `holiday.mp4`."""
    for label, step in (("jump", -12), ("run", 12)):
        for take in range(8):
            write_clip(tmp_path / "videos" / label / f"{take}.mp4", take, step)
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
            picture = np.full((32, 32, 3), 120 + take + i * step, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_commands_run(folder):
    programs = folder / "programs"
    programs.mkdir()
    (programs / "vidfuse").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vidfuse "$@"\n')
    (programs / "vidfuse").chmod(0o755)
    settings = {f"VIDFUSE_{name.upper()}": str(value) for name, value in TINY.items()}
    here = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "VIDFUSE_WORKERS": "1"}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(snippets("bash"))],
        env=os.environ | {"PYTHONPATH": str(README.parent)} | settings | here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "runs/small-1/model.safetensors").is_file()
    assert (folder / "features/index.csv").is_file()


def test_the_python_runs(folder, monkeypatch, capsys):
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
