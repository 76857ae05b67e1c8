"""Clips that come over time: a list that grows, and a folder that fills up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from program import PATIENCE, environment

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture
def start(feature_cache, trained) -> Callable[..., object]:
    """Starts ``vidfuse predict`` on the tiny model, to be talked to while it runs."""

    @contextmanager
    def go(*arguments: object) -> Iterator[subprocess.Popen[str]]:
        words = ("predict", *map(str, arguments), "--model", str(trained.run))
        with subprocess.Popen(
            [sys.executable, "-m", "vidfuse", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(feature_cache, {}),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return go


@posix_only
def test_each_line_is_answered_before_the_next_is_written(start, clips):
    with start("-", "--format", "jsonl") as process:
        for path in (clips[0], "missing.mp4", clips[1]):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            record = json.loads(process.stdout.readline())
            assert record["path"] == str(path)
            assert record["ok"] is (path != "missing.mp4")
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(PATIENCE) == 1


@posix_only
def test_ctrl_c_ends_the_wait_for_a_line(start, clips):
    with start("-", "--format", "jsonl") as process:
        process.stdin.write(f"{clips[0]}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["ok"]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read().endswith("Interrupted.\n")


@posix_only
def test_a_folder_is_watched_until_ctrl_c(start, clips, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clips[0], folder / "first.mp4")
    with start("--watch", folder, "--format", "jsonl") as process:
        first = json.loads(process.stdout.readline())
        assert (first["path"], first["ok"]) == (str(folder / "first.mp4"), True)
        (folder / "broken.mp4").write_bytes(b"this is no video" * 64)
        broken = json.loads(process.stdout.readline())
        assert (broken["path"], broken["ok"]) == (str(folder / "broken.mp4"), False)
        # Moved there as a whole: tests/data/test_arriving.py has files that grow.
        shutil.copy(clips[1], tmp_path / "second.mp4").rename(folder / "second.mp4")
        second = json.loads(process.stdout.readline())
        assert (second["path"], second["ok"]) == (str(folder / "second.mp4"), True)
        process.send_signal(signal.SIGINT)  # the one way in which it ends, and so no failure
        assert process.wait(PATIENCE) == 1  # but that of an input
        assert process.stdout.read() == ""
        assert "Interrupted" not in process.stderr.read()


@posix_only
def test_without_failures_a_watch_ends_well_and_prints_its_document(start, tmp_path):
    with start("--watch", tmp_path, "--format", "json") as process:
        assert "Model: " in process.stderr.readline()
        assert process.stderr.readline() == f"Watching {tmp_path}; Ctrl-C ends it\n"
        process.send_signal(signal.SIGINT)
        document = json.loads(process.communicate(timeout=PATIENCE)[0])
        assert process.returncode == 0
    assert document["records"] == []


def test_what_is_watched_is_a_folder_and_nothing_beside_it(vidfuse, clips, tmp_path):
    answer = vidfuse("predict", "--watch", "nowhere")
    assert (answer.code, answer.out) == (2, "")
    assert "nowhere: no such folder" in answer.err
    answer = vidfuse("predict", clips[0], "--watch", tmp_path)
    assert answer.code == 2
    assert "Name either CLIPS or --watch FOLDER" in answer.err
    answer = vidfuse("predict", "--watch", tmp_path, "--watch", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert "--watch takes one folder, and 2 were given" in answer.err
    answer = vidfuse("predict")
    assert answer.code == 2
    assert "missing argument 'CLIPS'" in answer.err
