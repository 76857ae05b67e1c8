"""A child process that answers JSON lines, killed at its deadline.

Libraries that read other people's files crash, hang and take more memory than there is. So what
they do is done in a process of its own: an order goes in as a line of JSON, its answer comes out as
one, with bytes behind it where the answer says so. Unlike ``multiprocessing`` this needs no
``__main__`` guard in a user's script, and a process that dies costs one answer.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from vidfuse import streams

Order = dict[str, Any]
Answer = dict[str, Any]
Result = TypeVar("Result")

# Imports the very package that runs here, and nothing that lies around in the working directory.
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); import vidfuse; del sys.path[0]; "
    "from importlib import import_module; module, _, name = sys.argv[2].partition(':'); "
    "getattr(import_module(module), name)(*sys.argv[3:])"
)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
WATCH_SECONDS = 1.0  # between two looks whether the program is there
PIPE_BYTES = 2**20  # as much as Linux lets everybody have
LONGEST_ALARM = 2**31 - 1  # seconds, which the system takes as an int
ENDING_SECONDS = 5.0  # that a process may take which has closed its pipe
OUT_OF_MEMORY = 77  # exit status of a child that outgrew its memory
# Signals that somebody else sends; a crash is another one.
FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")


class ChildEndedError(Exception):
    """A child process ended before it answered.

    Attributes:
        late: Whether it was killed because its time was over.
        status: Its exit status; negative is the signal that ended it.
    """

    def __init__(self, late: bool, status: int) -> None:
        super().__init__(describe_ending(status))
        self.late = late
        self.status = status

    @property
    def from_outside(self) -> bool:
        """True where somebody else ended it: a person, or a system that is short of memory."""
        return not self.late and _signal_name(self.status) in FROM_OUTSIDE


class Child:
    """One child process.

    Args:
        target: ``module:function`` that serves in it; see `serve`.
        arguments: Texts that the function gets.
        files: Numbers of open files that it has, too, under the same numbers; not on Windows.
    """

    def __init__(
        self, target: str, arguments: Sequence[str] = (), files: Sequence[int] = ()
    ) -> None:
        package_parent = str(Path(__file__).resolve().parents[1])
        debug = bool(os.environ.get("VIDFUSE_DEBUG"))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, package_parent, target, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,
            env=os.environ | ONE_THREAD,
            pass_fds=files,
        )
        if sys.platform == "linux":
            import fcntl

            # A clip's frames come in one go, not in parts of 64 kB; a user may have only so many.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.process.stdout or 0, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._late = False
        self._turn = threading.Lock()  # an answer belongs to the order before it

    def alive(self) -> bool:
        """True while it can be asked."""
        return self.process.poll() is None

    def ask(self, order: Order, limit: float | None = None) -> tuple[Answer, bytes]:
        """Send an order; returns its answer and the bytes that follow it.

        Args:
            order: What to do, ready for JSON.
            limit: Seconds that the answer may take; None is any time.

        Raises:
            ChildEndedError: It ended without an answer, or took too long and was killed.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._turn:
            timer = None
            if limit is not None:
                timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), self._end)
                timer.daemon = True
                timer.start()
            try:
                line = json.dumps(order | {"limit": limit}).encode() + b"\n"
                self.process.stdin.write(line)
                self.process.stdin.flush()
                line = self.process.stdout.readline()
                answer: Answer = json.loads(line) if line.endswith(b"\n") else {"bytes": -1}
                size = answer.pop("bytes")
                payload = self.process.stdout.read(size) if size > 0 else b""
                if len(payload) == size:
                    return answer, payload
            except (OSError, ValueError):
                pass  # a broken pipe says what the exit status says better
            except BaseException:  # the next order would get the answer of this one
                self.process.kill()
                raise
            finally:
                if timer is not None:
                    timer.cancel()
                    timer.join()  # what it has begun must not end the next order
                if self._late:  # even with the answer just in time, nobody else can use the process
                    self.process.wait()
            try:
                status = self.process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:  # it lives, and what it said was no answer
                self.process.kill()
                status = self.process.wait()
            raise ChildEndedError(self._late, status)

    def _end(self) -> None:
        self._late = True
        self.process.kill()

    def close(self) -> None:
        """End it, also when it is busy."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # flushing an order to a process that is gone
                    stream.close()


def once_more(ask: Callable[[], Result]) -> Result:
    """The result of asking a child; it is asked once more where somebody else ended it.

    Raises:
        ChildEndedError: It ended by itself, or again.
    """
    try:
        return ask()
    except ChildEndedError as error:
        if not error.from_outside:
            raise
        return ask()


def describe_ending(status: int) -> str:
    """The ending of a process in words, by its exit status."""
    if status == OUT_OF_MEMORY:
        return "was ended (out of memory)"
    name = _signal_name(status)
    if name == "SIGKILL":
        return "was killed by signal 9 (probably out of memory)"
    if name in FROM_OUTSIDE:
        return f"was killed by signal {-status}"
    return f"crashed (signal {-status})" if status < 0 else f"ended (exit {status})"


def _signal_name(status: int) -> str | None:
    """Name of the signal that ended a process; None where none did."""
    return next((s.name for s in signal.Signals if s == -status), None) if status < 0 else None


def begin() -> IO[bytes]:
    """Make this process a child that serves; returns standard output for its answers alone.

    What libraries print goes to standard error. The process ends with the program, which may be
    killed while an order is carried out.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to handle
    streams.protect(results=False)
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:  # always, on Windows
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    return channel


def serve(
    answer: Callable[[Order], Answer],
    channel: IO[bytes] | None = None,
    after: Callable[[], object] | None = None,
) -> None:
    """Answer orders on standard input until it ends, as it does when the program is gone.

    Args:
        answer: Carries out an order. The bytes that it has under ``payload`` follow the line.
        channel: Of `begin`, where that was called before; None calls it.
        after: Called when an answer is out, while the next order may be on its way.
    """
    channel = channel or begin()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        end_after(order.pop("limit"))
        reply = answer(order)
        end_after(None)
        payload = reply.pop("payload", b"")
        channel.write(json.dumps(reply | {"bytes": len(payload)}).encode() + b"\n")
        channel.write(payload)
        channel.flush()
        del reply, payload
        if after is not None:
            after()


def end_after(seconds: float | None) -> None:
    """End this process when an order takes too long and the program that would see to it is gone.

    Args:
        seconds: From now on; None takes it back.
    """
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(0 if seconds is None else math.ceil(min(seconds + 5, LONGEST_ALARM)))
