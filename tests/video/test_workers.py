"""Decode processes: one bad file costs one record, never the run."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidfuse.doctor.probe import probe
from vidfuse.errors import InputError, UnknownNameError, UserError
from vidfuse.rpc import Child
from vidfuse.video import pool
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool

needs_posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and file names")


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """A file that is opened and never answers: a pipe that nobody writes to, behind a link."""
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "hanging.mp4"
    path.symlink_to(tmp_path / "pipe")
    return path


def request(path: object, frames: int = 4, size: int | None = 32) -> FrameRequest:
    return FrameRequest(str(path), "uniform", frames, size=size)


def pretend_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe has no size; the check for empty files must let it through."""
    monkeypatch.setattr(pool, "_time_limit", lambda path: 60.0)


def process_ids(pool: DecodePool) -> list[int]:
    return [process.process.pid for process in pool.running]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(happens, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@needs_posix
def test_a_hang_costs_one_record(
    clip: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_size(monkeypatch)
    started: list[str] = []
    start = DecodePool.start

    def noted(pool: DecodePool, backend: str, path: str) -> Any:
        started.append(backend)
        return start(pool, backend, path)

    monkeypatch.setattr(DecodePool, "start", noted)
    with DecodePool("auto", workers=2, time_limit=240) as pool:
        list(pool.map([request(clip)] * 4))  # processes are there, however busy the machine is
        limits = {str(hanging): 2.0}
        monkeypatch.setattr("vidfuse.video.pool._time_limit", lambda path: limits.get(path, 240.0))
        pool.time_limit = None
        paths = [clip, hanging, clip, clip]
        answers = list(pool.map(map(request, paths)))
    bad = [(asked.path, answer) for asked, answer in answers if isinstance(answer, InputError)]
    assert [path for path, _ in bad] == [str(hanging)]
    assert "took longer than" in bad[0][1].reason
    assert sum(isinstance(answer, Frames) for _, answer in answers) == 3
    assert set(started) == {"pyav"}, "another decoder would hang as well"


@needs_posix
@pytest.mark.parametrize("kills", [1, 2])
def test_a_process_killed_from_outside_is_tried_once_more(
    kills: int, clip: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_size(monkeypatch)
    at_work: queue.Queue[Child] = queue.Queue()  # processes that are asked for the file
    ask = Child.ask

    def noted(child: Child, order: dict[str, Any], limit: float | None = None) -> Any:
        if order.get("request", {}).get("path") == str(hanging):
            at_work.put(child)
        return ask(child, order, limit)

    monkeypatch.setattr(Child, "ask", noted)
    with DecodePool("pyav", workers=1, time_limit=240) as pool:
        pool.submit(request(clip)).result()

        def kill() -> None:
            for number in range(kills):
                process = at_work.get()
                if number == 0 and kills == 1:
                    hanging.unlink()
                    hanging.symlink_to(clip)
                os.kill(process.process.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        answers = dict(pool.map(map(request, [hanging, clip])))
        killer.join()
        assert isinstance(answers[request(clip)], Frames)
        answer = answers[request(hanging)]
        if kills == 1:
            assert isinstance(answer, Frames)
        else:
            assert isinstance(answer, InputError)
            assert answer.reason == "pyav was killed by signal 9 (probably out of memory) on it"


@needs_posix
def test_a_process_killed_while_idle_costs_nothing(clip: Path) -> None:
    with DecodePool("pyav", workers=1) as pool:
        pool.submit(request(clip)).result()
        (process,) = pool.running
        os.kill(process.process.pid, signal.SIGKILL)
        wait_until(lambda: not process.alive())
        assert len(pool.submit(request(clip)).result().times) == 4


def test_what_is_no_video(tmp_path: Path, pool: DecodePool) -> None:
    (tmp_path / "empty.mp4").touch()
    for path, reason in (
        (tmp_path / "missing.mp4", "no such file"),
        (tmp_path / "empty.mp4", "the file is empty"),
        (tmp_path, "no frame in this folder"),
        ("nul\0.mp4", "null"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            pool.submit(request(path)).result()
        assert caught.value.path == str(path)


NAMES = [
    "with space.mp4",
    "ünï — 漢字.mp4",
    "C:drive.mp4",
    "file:clip.mp4",
    "http:clip.mp4",
    "-i.mp4",
    "%03d.mp4",
    "clip%20.mp4",
    "a\nb.mp4",
    "'quotes\".mp4",
    "no suffix",
    "concat:a|b.mp4",
    os.fsdecode(b"latin-\xe9.mp4"),  # Latin-1, no UTF-8
]


@needs_posix
@pytest.mark.parametrize("decoder", ["auto", "decord"])
@pytest.mark.parametrize("name", NAMES, ids=map(ascii, NAMES))
def test_any_file_name(
    name: str,
    decoder: str,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: DecodePool,
    decord_pool: DecodePool,
) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    one = pool if decoder == "auto" else decord_pool
    if decoder == "decord" and name != name.encode(errors="replace").decode():
        with pytest.raises(InputError, match="decord cannot open it"):
            one.submit(request(name)).result()
        return
    for path in (name, tmp_path / name):
        frames = one.submit(request(path)).result()
        assert len(frames.times) == 4
        assert not frames.warnings


@pytest.fixture(scope="module")
def decord_pool() -> Iterator[DecodePool]:
    try:
        pool = DecodePool("decord", workers=1)
    except UserError as error:
        pytest.skip(str(error))
    with pool:
        yield pool


def test_answers_do_not_depend_on_company(clip: Path) -> None:
    """Each request gets its own answer, whatever was read before or beside it."""
    asked = [FrameRequest(str(clip), f"stride:{n}", n, size=8 + n) for n in range(1, 13)]
    counts: dict[int, int] = {}
    with DecodePool("pyav", workers=3) as many, DecodePool("pyav", workers=1) as one:
        answers = dict(many.map(asked))
        assert set(answers) == set(asked)
        for request_, frames in answers.items():
            assert isinstance(frames, Frames)
            alone = one.submit(request_).result()
            assert frames.header() == alone.header()
            assert (frames.pixels == alone.pixels).all()
            counts[request_.frames] = len(frames.times)
    assert [counts[frames] for frames in range(1, 6)] == [1, 2, 3, 4, 5]


def test_few_answers_are_in_memory(clip: Path) -> None:
    taken, given = 0, 0

    def requests() -> Iterator[FrameRequest]:
        nonlocal taken
        for _ in range(30):
            taken += 1
            yield request(clip)

    with DecodePool("pyav", workers=2) as pool:
        for _ in pool.map(requests()):
            given += 1
            time.sleep(0.01)
            assert taken - given < 2 * pool.workers + 1
    assert given == 30


@needs_posix
def test_close_while_busy(clip: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_size(monkeypatch)
    others = set(threading.enumerate())
    pool = DecodePool("auto", workers=2, time_limit=3600)
    answers = pool.map(map(request, [clip, hanging, hanging, hanging, hanging]))
    next(answers)
    pids = process_ids(pool)
    threads = set(threading.enumerate()) - others
    pool.close()  # at once: an hour is longer than a test may take
    assert pids
    assert not any(map(is_running, pids))
    assert threads
    for thread in threads:
        thread.join()
    assert not process_ids(pool), "a process was started after the pool was closed"
    pool.close()


@needs_posix
def test_interrupting_map_ends_everything(
    clip: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_size(monkeypatch)
    main = threading.main_thread().ident
    assert main is not None
    pids = []

    def read_until_interrupted() -> None:
        with DecodePool("auto", 1, time_limit=60) as pool:
            pool.submit(request(clip)).result()
            pids.extend(process_ids(pool))
            threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
            list(pool.map([request(hanging)]))

    # A shell that starts the tests in the background has them ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            read_until_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert pids
    assert not any(map(is_running, pids))


PROGRAM = """
    import os, sys, threading
    from vidfuse.video import pool
    from vidfuse.video.frames import FrameRequest

    pool._time_limit = lambda path: 60.0
    pool = pool.DecodePool("pyav", workers=2, time_limit=240)
    for _ in pool.map([FrameRequest(sys.argv[1], "uniform", 2)] * 4):
        pass
    pool.time_limit = float(sys.argv[3])
    if sys.argv[2]:
        busy = threading.Thread(
            target=lambda: list(pool.map([FrameRequest(sys.argv[2], "uniform", 2)])), daemon=True
        )
        busy.start()
        busy.join(0.5)
    print(*[process.process.pid for process in pool.running], flush=True)
    if len(sys.argv) > 4:
        sys.stdin.read()
"""


def start_program(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(pool.__file__).parents[2])},
    )


@needs_posix
@pytest.mark.parametrize("busy", [False, True])
def test_no_process_outlives_a_killed_program(clip: Path, hanging: Path, busy: bool) -> None:
    program = start_program(clip, hanging if busy else "", 5, "wait")
    assert program.stdout is not None
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert pids
    assert all(map(is_running, pids))
    program.kill()
    program.wait()
    # A busy one ends with its time limit, at the latest.
    wait_until(lambda: not any(map(is_running, pids)))


@needs_posix
def test_a_program_that_forgets_to_close_still_ends(clip: Path) -> None:
    program = start_program(clip, "", 60)
    output, _ = program.communicate()
    assert program.returncode == 0
    pids = [int(pid) for pid in output.split()]
    wait_until(lambda: not any(map(is_running, pids)))


def test_decord_without_cuda_says_so(clip: Path) -> None:
    found = probe("decord")
    if found.error or found.values["gpu_error"] is None:
        pytest.skip(found.error or "this decord decodes on a GPU")
    with (
        DecodePool("decord-gpu", workers=1) as pool,
        pytest.raises(UserError, match="it was built without CUDA") as caught,
    ):
        pool.submit(request(clip)).result()
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("backend", "mine", "others"), [("pyav", "av", "decord"), ("decord", "decord", "av")]
)
def test_a_process_imports_one_decoding_library(
    backend: str, mine: str, others: str, clip: Path
) -> None:
    pytest.importorskip("importlib.metadata").version(mine)
    code = """
        import json, sys
        from vidfuse.video.worker import ReaderCache, answer

        order = {"op": "read", "backend": sys.argv[1], "keep": False}
        order["request"] = {"path": sys.argv[2], "sampling": "uniform", "frames": 2, "size": 32}
        header = answer(order, ReaderCache())
        assert "frames" in header, header
        print(json.dumps(sorted(sys.modules)))
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), backend, str(clip)]
    environment = os.environ | {"PYTHONPATH": str(Path(pool.__file__).parents[2])}
    output = subprocess.run(arguments, capture_output=True, check=True, env=environment).stdout
    modules = set(json.loads(output))
    assert mine in modules
    assert not {others, "torch", "torchvision", "sklearn", "typer", "rich"} & modules


def test_files_in_the_working_directory_are_not_imported(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("av.py", "json.py", "numpy.py", "vidfuse.py"):
        (tmp_path / name).write_text("raise SystemExit('imported by mistake')")
    monkeypatch.chdir(tmp_path)
    with DecodePool("pyav", workers=1) as pool:
        assert len(pool.submit(request(clip)).result().times) == 4


def test_unknown_decoder() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'decord'"):
        DecodePool("decrod")
