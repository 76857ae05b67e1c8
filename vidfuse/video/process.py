"""One decode process, seen from the program: orders go in, pictures come out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


class ProcessEndedError(Exception):
    """A decode process died or was ended over its time limit."""


# Imports the very package that runs here, and nothing that lies around in the working directory.
WORKER = (
    "import sys; sys.path.insert(0, sys.argv[1]); import vidfuse; del sys.path[0]; "
    "from vidfuse.video.worker import main; main()"
)


class DecodeProcess:
    """One decode process, which runs ``vidfuse.video.worker``."""

    def __init__(self) -> None:
        package_parent = str(Path(__file__).resolve().parents[2])
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        debug = bool(os.environ.get("VIDFUSE_DEBUG"))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER, package_parent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,
            env=os.environ | one_thread,
        )

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
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(json.dumps(order | {"limit": limit}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            header: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"bytes": -1}
            size = header.pop("bytes")
            payload = self.process.stdout.read(size) if size > 0 else b""
            if len(payload) == size:
                return header, payload
        except (OSError, ValueError):
            pass  # a broken pipe says what the exit status says better
        finally:
            timer.cancel()
            timer.join()
            if late.is_set():  # even with the answer just in time, nobody else can use the process
                self.process.wait()
        if late.is_set():
            raise ProcessEndedError(f"took longer than {limit:.0f} s to decode it")
        status = self.process.wait()
        raise ProcessEndedError(
            f"crashed on it (signal {-status})" if status < 0 else f"ended on it (exit {status})"
        )

    def close(self) -> None:
        """End it, also when it is busy."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # flushing an order to a process that is gone
                    stream.close()
