"""One decode process, seen from the program: orders go in, pictures come out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vidfuse.video.deadlines import Deadlines
from vidfuse.video.shared import SharedMemory, new_block

DEADLINES = Deadlines()
if hasattr(os, "register_at_fork"):
    # The thread that sees to them is not in a forked process, and its lock may be held.
    os.register_at_fork(after_in_child=DEADLINES.__init__)  # type: ignore[misc]


class ProcessEndedError(Exception):
    """A decode process died or was ended over its time limit."""


# Imports the very package that runs here, and nothing that lies around in the working directory.
WORKER = (
    "import sys; sys.path.insert(0, sys.argv[1]); import vidfuse; del sys.path[0]; "
    "from vidfuse.video.worker import main; main(*map(int, sys.argv[2:]))"
)


class DecodeProcess:
    """One decode process, which runs ``vidfuse.video.worker``.

    Pictures come through memory that both share, where the system has such without a name, and
    through the pipe otherwise.
    """

    def __init__(self) -> None:
        package_parent = str(Path(__file__).resolve().parents[2])
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        debug = bool(os.environ.get("VIDFUSE_DEBUG"))
        self.late = False
        block = new_block()
        passed = [] if block is None else [block]
        try:
            self.memory = None if block is None else SharedMemory(block)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", WORKER, package_parent, *map(str, passed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if debug else subprocess.DEVNULL,
                env=os.environ | one_thread,
                pass_fds=passed,
            )
        finally:
            if block is not None:
                os.close(block)

    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def ask(self, order: dict[str, Any], limit: float) -> tuple[dict[str, Any], bytes]:
        """Send an order and wait for its answer.

        Raises:
            ProcessEndedError: The process died, or took longer than ``limit`` seconds.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        DEADLINES.start(self, limit, self._end)
        try:
            self.process.stdin.write(json.dumps(order | {"limit": limit}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            header: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"bytes": -1}
            size = header.pop("bytes")
            if header.pop("shared", False):
                assert self.memory is not None
                return header, self.memory.take(size)
            payload = self.process.stdout.read(size) if size > 0 else b""
            if len(payload) == size:
                return header, payload
        except (OSError, ValueError):
            pass  # a broken pipe says what the exit status says better
        finally:
            DEADLINES.stop(self)
            if self.late:  # even with the answer just in time, nobody else can use the process
                self.process.wait()
        status = self.process.wait()
        if self.late:
            raise ProcessEndedError(f"took longer than {limit:.0f} s to decode it")
        raise ProcessEndedError(
            f"crashed on it (signal {-status})" if status < 0 else f"ended on it (exit {status})"
        )

    def _end(self) -> None:
        self.late = True
        self.process.kill()

    def close(self) -> None:
        """End it, also when it is busy."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # flushing an order to a process that is gone
                    stream.close()
        if self.memory is not None:
            self.memory.close()
