"""``vidfuse predict --live``: a stream, decision by decision."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from live_streams import serve, write_stream
from program import PATIENCE, Vidfuse, environment

WINDOW = ("--window", 0.8, "--step", 0.4)
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and pipes")
pytestmark = posix_only


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_stream(tmp_path_factory.mktemp("stream") / "stream.ts", 4).read_bytes()


def start(feature_cache: Path, *arguments: object) -> subprocess.Popen[str]:
    """The program, which Ctrl-C reaches as from a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "vidfuse", "predict", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(feature_cache, {}),
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_forms(vidfuse: Vidfuse, trained, stream):
    command = ("predict", "--live", "pipe:", "--model", trained.run, *WINDOW)
    text = vidfuse(*command, stdin=stream)
    assert text.code == 0, text.err
    lines = [line.split("\t") for line in text.out.splitlines()]
    assert len(lines) == 9
    jsonl = vidfuse(*command, "--format", "jsonl", "--top", 1, stdin=stream)
    records = [json.loads(line) for line in jsonl.out.splitlines()]
    assert list(records[0]) == ["source", "time", "label", "score", "delay", "top"]
    assert all(len(record["top"]) == 1 for record in records)
    for (source, shown, label, score, delay), record in zip(lines, records, strict=True):
        assert (source, label) == (record["source"], record["label"]) == ("pipe:", label)
        assert float(shown) == pytest.approx(record["time"], abs=0.006)
        assert float(score) == pytest.approx(record["score"], abs=1e-3)
        assert 0 < float(delay) < 60
    table = vidfuse(*command, "--format", "csv", stdin=stream)
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["label"] for row in rows] == [record["label"] for record in records]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("clip.mp4", "--live", "pipe:"), "CLIPS does not go with --live"),
        (("--live", "pipe:", "--watch", "."), "--watch does not go with --live"),
        (("--live", "pipe:", "--timeline"), "--timeline does not go with --live"),
        (("--live", "pipe:", "--out", "a.vtt"), "--out does not go with --live"),
        (("--live", "pipe:", "--format", "json"), "--format json does not go with --live"),
        (("--live", "pipe:", "--smooth", 1), "--smooth is not for --live"),
        (("--live", "pipe:", "--window", 0), "window"),
        (("--live", "pipe:", "--patience", 0), "patience"),
        (("--live", "-"), "pipe:"),
        (("--live", "nowhere"), "no such file"),
        (("--live", "--top", 3), "--live needs a source"),
        (("clip.mp4", "--patience", 3), "--patience is for --live"),
    ],
)
def test_wrong_usage(vidfuse: Vidfuse, trained, arguments, said):
    answer = vidfuse("predict", "--model", trained.run, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_who_sends_nothing_is_given_up(vidfuse: Vidfuse, trained):
    with serve(b"") as server:
        answer = vidfuse("predict", "--live", server.url, "--patience", 2, "--model", trained.run)
    assert (answer.code, answer.out) == (1, "")
    assert f"Error: {server.url}: no frame for 2 s" in answer.err
    assert "--patience waits longer" in answer.err


def test_ctrl_c_ends_it(feature_cache, trained, stream):
    with serve(stream, rate=len(stream) / 4, endless=True) as server:
        arguments = ("--live", server.url, "--model", trained.run, *WINDOW)
        process = start(feature_cache, *arguments)
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            rest, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert all(line.startswith(f"{server.url}\t") for line in [first, *rest.splitlines()])
    assert "Traceback" not in err
    assert "Error" not in err
    assert children
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_being_ended_leaves_no_process(feature_cache, trained, stream):
    with serve(stream, rate=len(stream) / 4, endless=True) as server:
        process = start(feature_cache, "--live", server.url, "--model", trained.run, *WINDOW)
        assert process.stdout is not None
        assert process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_a_reader_of_the_output_that_has_seen_enough(feature_cache, trained, stream):
    with serve(stream, rate=len(stream) / 4, endless=True) as server:
        process = start(feature_cache, "--live", server.url, "--model", trained.run, *WINDOW)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=PATIENCE) == 0, err
    assert "Traceback" not in err
    assert "Error" not in err


def test_memory_does_not_grow_with_the_stream(feature_cache, trained, stream):
    """Ten minutes of a stream that is sent as fast as it is read, after the first of them."""
    command = ("--live", "pipe:", "--model", trained.run, *WINDOW, "--format", "jsonl")
    process = start_piped(feature_cache, *command)
    assert process.stdin is not None
    assert process.stdout is not None

    def write() -> None:
        try:
            for _ in range(150):
                process.stdin.write(stream)  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass

    threading.Thread(target=write, daemon=True).start()
    taken: dict[int, int] = {}
    for line in process.stdout:
        minute = int(json.loads(line)["time"] // 60)
        if minute not in taken:
            taken[minute] = memory_of(process.pid)
    assert process.wait(timeout=PATIENCE) == 0
    assert max(taken) == 9
    assert taken[9] < 1.05 * taken[1], taken


def start_piped(feature_cache: Path, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "vidfuse", "predict", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(feature_cache, {}),
    )


def memory_of(pid: int) -> int:
    """Bytes that a process and its children take."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def test_each_line_comes_when_it_is_decided(feature_cache, trained, stream):
    """Not when a buffer is full, nor at the end of the pipe."""
    process = start_piped(feature_cache, "--live", "pipe:", "--model", trained.run, *WINDOW)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(stream)
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"pipe:\t")
    assert process.poll() is None
    time.sleep(0.1)
    process.stdin.close()
    process.stdout.read()
    assert process.wait(timeout=PATIENCE) == 0
