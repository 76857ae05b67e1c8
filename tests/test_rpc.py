"""A child process that answers: what it does when it is late, dies, or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidfuse import rpc
from vidfuse.rpc import OUT_OF_MEMORY, Child, ChildEndedError, describe_ending, serve


def answer(order: dict[str, Any]) -> dict[str, Any]:
    if "exit" in order:
        os._exit(order["exit"])
    if "signal" in order:
        os.kill(os.getpid(), order["signal"])
    if "sleep" in order:
        print("what a library prints")
        time.sleep(order["sleep"])
    return {"pid": os.getpid(), "text": order.get("text")}


def main() -> None:
    serve(answer)


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    child = Child("test_rpc:main")
    yield child
    child.close()


def test_answers_come_back_whatever_is_printed(child: Child) -> None:
    text = "ü\n\udce9"  # a name that is no text
    found, payload = child.ask({"text": text, "sleep": 0}, limit=60)
    assert found["text"] == text
    assert found["pid"] == child.process.pid
    assert payload == b""
    assert child.ask({})[0]["pid"] == found["pid"]


def test_what_is_late_is_killed(child: Child) -> None:
    child.ask({}, limit=60)
    with pytest.raises(ChildEndedError) as caught:
        child.ask({"sleep": 60}, limit=0.2)
    assert caught.value.late
    assert not caught.value.from_outside
    assert not child.alive()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_an_interrupted_order_leaves_no_answer_for_the_next(child: Child) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    child.ask({}, limit=60)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            child.ask({"text": "first", "sleep": 1})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ChildEndedError):
        child.ask({"text": "second"})


def test_no_limit_is_too_long(child: Child) -> None:
    assert child.ask({}, limit=1e300)[0]["pid"] == child.process.pid


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("order", "status", "outside"),
    [
        ({"exit": 3}, 3, False),
        ({"exit": OUT_OF_MEMORY}, OUT_OF_MEMORY, False),
        ({"signal": signal.SIGSEGV}, -signal.SIGSEGV, False),
        ({"signal": signal.SIGKILL}, -signal.SIGKILL, True),
        ({"signal": signal.SIGTERM}, -signal.SIGTERM, True),
    ],
)
def test_how_it_ended(child: Child, order: dict[str, int], status: int, outside: bool) -> None:
    with pytest.raises(ChildEndedError) as caught:
        child.ask(order, limit=60)
    assert (caught.value.status, caught.value.from_outside) == (status, outside)
    assert not caught.value.late
    assert str(caught.value) == describe_ending(status)


PROGRAM = """
import sys, threading
from vidfuse.rpc import Child
child = Child("test_rpc:main")
child.ask({})
threading.Thread(target=child.ask, args=({"sleep": 60},), daemon=True).start()
print(child.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell that a parent is gone")
def test_a_busy_child_ends_when_its_program_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    here, package = Path(__file__).parent, Path(rpc.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{package}")
    words = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        child = psutil.Process(int(program.stdout.readline()))
        program.kill()
    gone, _ = psutil.wait_procs([child], timeout=240)
    assert gone
