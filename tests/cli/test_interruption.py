"""Ctrl-C during training and extraction, and bars on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from program import NETWORK, PATIENCE, TINY, environment, interrupt

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and terminals")


@posix_only
def test_ctrl_c_in_training_keeps_the_best_weights(vidfuse, feature_cache, dataset, tmp_path):
    metrics = tmp_path / "run" / "metrics.jsonl"
    endless = (*TINY, "--epochs", "1000000", "--patience", "0", "--out", "run")
    answer = interrupt(
        feature_cache,
        *("train", dataset, *endless),
        cwd=tmp_path,
        ready=lambda: metrics.exists() and metrics.read_text().count("\n") > 2,
    )
    assert (answer.code, answer.out) == (130, "")
    assert "the best weights so far are in run/model.safetensors" in answer.err
    assert answer.err.endswith("Interrupted.\n")
    assert "Traceback" not in answer.err
    assert vidfuse("evaluate", dataset, "--model", "run").code == 0


@posix_only
def test_ctrl_c_in_extraction_keeps_what_is_done(clips, tmp_path):
    own = tmp_path / "own"
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(160):  # different contents, since the cache goes by content
        (folder / f"{i}.mp4").write_bytes(clips[i % 12].read_bytes() + i.to_bytes(2, "big"))
    arguments = ("extract", folder, *NETWORK, "--frames", "4", "--workers", "1")

    def entries() -> int:
        return len(list(own.rglob("*.safetensors")))

    answer = interrupt(own, *arguments, cwd=tmp_path, ready=lambda: entries() > 2)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.endswith("Interrupted.\n")
    assert "Traceback" not in answer.err
    kept = entries()
    assert 2 < kept < 160
    done = subprocess.run(
        [sys.executable, "-m", "vidfuse", *map(str, arguments), "--format", "json"],
        capture_output=True,
        env=environment(own, {}),
        check=True,
    )
    report = json.loads(done.stdout)
    assert (report["reused"], report["computed"]) == (kept, 160 - kept)


def on_terminal(feature_cache: Path, *arguments: str | Path, env: dict[str, str]) -> str:
    """What the program shows on a terminal 100 columns wide."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "vidfuse", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env=environment(feature_cache, {"TERM": "xterm-256color", **env}),
    )
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:
        pass  # how Linux says that the other side is gone
    os.close(master)
    assert process.wait(timeout=PATIENCE) == 0
    return shown.decode()


@posix_only
def test_a_terminal_gets_a_bar_and_no_color_is_honoured(feature_cache, dataset, tmp_path):
    arguments = ("train", dataset, *TINY, "--out")
    plain = on_terminal(feature_cache, *arguments, tmp_path / "a", env={"NO_COLOR": "1"})
    assert "Training" in plain
    assert "3/3" in plain
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)  # no colour, though the bar moves
    colours = on_terminal(feature_cache, *arguments, tmp_path / "b", env={})
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", colours)
    quiet = on_terminal(feature_cache, *arguments, tmp_path / "c", "--quiet", env={})
    assert all(line.startswith("Warning: ") for line in quiet.splitlines())
    assert "\x1b" not in quiet


EARLY_MODULES = "vidfuse.streams typer vidfuse.cli.predict numpy torch torch.nn torchvision"
EARLY = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == sys.argv[-1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
from vidfuse.cli.app import main
main()
"""


@posix_only
@pytest.mark.parametrize("module", EARLY_MODULES.split())
def test_ctrl_c_is_understood_while_the_program_is_imported(clips, trained, tmp_path, module):
    words = ("predict", clips[0], "--model", trained.run, "--cache", tmp_path, "--time-limit", "60")
    code = EARLY.replace("sys.argv[-1]", repr(module))
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(tmp_path, {}),
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.endswith("Interrupted.\n")
    assert "Traceback" not in done.stderr
