"""Isolated decode processes: one bad file costs one record, never the run."""

from __future__ import annotations

import os
import queue
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Self

from vidfuse.data.files import describe_os_error
from vidfuse.errors import InputError, UserError
from vidfuse.rpc import OUT_OF_MEMORY, ChildEndedError, once_more
from vidfuse.system import cores, memory_share
from vidfuse.video.decoder import (
    installed,
    needs_timeline,
    not_installed,
    picture_backend,
    policy,
    wrong_frames,
)
from vidfuse.video.frames import FrameRequest, Frames, request_to_dict
from vidfuse.video.process import DecodeProcess

# A clip may take this long, and longer the larger its file is (an hour of video is about 1 GB).
BASE_SECONDS = 120.0
BYTES_PER_EXTRA_SECOND = 2_000_000
FILES_PER_EXTRA_SECOND = 50
RELEASE_SECONDS = 10.0


class DecodePool:
    """Several decode processes that read clips side by side.

    Args:
        decoder: A key of ``decoder.POLICIES``.
        workers: How many clips are read at once; None is one per core.
        time_limit: Seconds that one clip may take; None grows with the file's size.
        active: How many of the workers read until `grow` allows more; None is all.
        memory: Bytes that one clip may take; None is a share of the machine's.

    Raises:
        UserError: A pinned decoder is unknown or not installed.
    """

    def __init__(
        self,
        decoder: str = "auto",
        workers: int | None = None,
        time_limit: float | None = None,
        active: int | None = None,
        memory: int | None = None,
    ) -> None:
        _, self.backends = policy(decoder)
        if len(self.backends) == 1 and not installed(self.backends[0]):
            raise not_installed(self.backends[0])
        self.workers = workers or cores()
        self.time_limit = time_limit
        self._processes = _Processes(memory or memory_share(self.workers))
        self._threads = ThreadPoolExecutor(self.workers, "decode")
        # Last in, first out: where few clips are read, few processes are started.
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        self.active = 0
        self.grow(active or self.workers)

    def grow(self, active: int) -> None:
        """Let so many of the workers read at once; those that read already go on."""
        for _ in range(self.active, min(active, self.workers)):
            self._free.put(Slot(self.backends, self.time_limit, self._processes))
            self.active += 1

    def read(self, request: FrameRequest) -> Frames:
        """Read one clip in a decode process.

        Raises:
            InputError: The clip cannot be read; the message says why.
        """
        return self._threads.submit(self._read, request).result()

    def _read(self, request: FrameRequest) -> Frames:
        slot = self._free.get()
        try:
            return slot.read(request)
        finally:
            self._free.put(slot)

    def map(
        self, requests: Iterable[FrameRequest]
    ) -> Iterator[tuple[FrameRequest, Frames | InputError]]:
        """Read clips side by side, beginning at once, whenever the first answer is asked for.

        Answers come as they are ready, a few at a time in memory.
        """
        source = iter(requests)
        pending: dict[Future[Frames], FrameRequest] = {}
        self._submit(source, pending)
        return self._answers(source, pending)

    def _submit(
        self, source: Iterator[FrameRequest], pending: dict[Future[Frames], FrameRequest]
    ) -> None:
        """Give the processes so much to do that none waits for the next order."""
        for request in islice(source, max(0, 2 * self.active - len(pending))):
            pending[self._threads.submit(self._read, request)] = request

    def _answers(
        self, source: Iterator[FrameRequest], pending: dict[Future[Frames], FrameRequest]
    ) -> Iterator[tuple[FrameRequest, Frames | InputError]]:
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                while done:  # a set that kept its answers would double what is in memory
                    future = done.pop()
                    request = pending.pop(future)
                    try:
                        answer: Frames | InputError = future.result()
                    except InputError as error:
                        answer = error
                    yield request, answer
                self._submit(source, pending)
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """End all decode processes, also those that are busy."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LimitError(InputError):
    """Reading a clip takes more time or memory than it may; another decoder needs as much."""


class _Processes:
    """All decode processes of a pool; after ``close`` there are no new ones.

    Args:
        memory: Bytes that each may take.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.lock = threading.Lock()
        self.running: set[DecodeProcess] = set()
        self.closed = False

    def start(self, backend: str, path: str) -> DecodeProcess:
        with self.lock:
            if self.closed:
                raise InputError(path, "not read, since reading was stopped")
            process = DecodeProcess(backend, self.memory)
            self.running.add(process)
            return process

    def end(self, process: DecodeProcess) -> None:
        with self.lock:
            self.running.discard(process)
        process.close()

    def close(self) -> None:
        with self.lock:
            self.closed = True
        for process in list(self.running):
            self.end(process)


class Slot:
    """The decode processes of one worker: one per backend, since two do not share a process.

    Args:
        backends: What to try, in order.
        time_limit: Seconds that one request may take; None grows with the file's size.
        processes: Starts them.
        keep: Whether the clip that was read last stays open, for the next request.
    """

    def __init__(
        self,
        backends: tuple[str, ...],
        time_limit: float | None,
        processes: _Processes,
        keep: bool = False,
    ) -> None:
        self.backends = backends
        self.time_limit = time_limit
        self.processes = processes
        self.keep = keep
        self.mine: dict[str, DecodeProcess] = {}

    def read(self, request: FrameRequest) -> Frames:
        """Read a clip with the first backend that can.

        Raises:
            InputError: None can; the message says why the first could not.
        """
        limit = _time_limit(request.path)
        deadline = time.monotonic() + (self.time_limit or limit)
        reasons: list[str] = []
        hint: str | None = None
        for backend in _backends(request.path, self.backends):
            try:
                frames = self._read_with(backend, request, deadline)
            except InputError as error:
                hint = hint if reasons else error.hint
                reasons.append(error.reason)
                if isinstance(error, LimitError):
                    break
                continue
            if reasons:
                warning = f"{self.backends[0]} could not read it: {reasons[0]}"
                frames = replace(frames, warnings=[warning, *frames.warnings])
            return frames
        raise InputError(request.path, reasons[0], hint)

    def release(self) -> None:
        """Close the clip that was kept open."""
        for process in list(self.mine.values()):
            try:
                process.ask({"op": "release"}, RELEASE_SECONDS)
            except ChildEndedError:
                self.processes.end(process)

    def _read_with(self, backend: str, request: FrameRequest, deadline: float) -> Frames:
        order: dict[str, Any] = {"op": "read", "backend": backend, "keep": self.keep}
        order["request"] = request_to_dict(request) | {"path": os.path.abspath(request.path)}
        if needs_timeline(backend):
            # PyAV opens only containers that lead to no other file, which these do not look at.
            index = {"op": "index", "backend": backend, "path": order["request"]["path"]}
            header, _ = self._ask("pyav", request.path, index, deadline)
            if "input_error" in header:
                raise InputError(request.path, *header["input_error"])
            if header.get("obstacle"):
                raise wrong_frames(request.path, backend, header["obstacle"])
            order["timeline"] = {"times": header["times"], "end": header["end"]}
        header, payload = self._ask(backend, request.path, order, deadline)
        if "user_error" in header:
            raise UserError(*header["user_error"])
        if "input_error" in header:
            raise InputError(request.path, *header["input_error"])
        return Frames.from_header(header["frames"], payload)

    def _ask(
        self, backend: str, path: str, order: dict[str, Any], deadline: float
    ) -> tuple[dict[str, Any], bytes]:
        """Ask a decode process; once more where somebody else ended it.

        Raises:
            InputError: It crashed, or a limit was reached.
        """
        try:
            header, payload = once_more(lambda: self._ask_once(backend, path, order, deadline))
        except ChildEndedError as error:
            if error.late:
                seconds = self.time_limit or _time_limit(path)
                reason = f"{backend} took longer than {seconds:g} s to decode it"
                raise LimitError(path, reason, "Allow more with --time-limit.") from error
            if error.status == OUT_OF_MEMORY:
                raise self._too_large(path) from error
            raise InputError(path, f"{backend} {error} on it") from error
        if header.get("out_of_memory"):
            self._end(backend)  # what it holds is in pieces
            raise self._too_large(path)
        return header, payload

    def _ask_once(
        self, backend: str, path: str, order: dict[str, Any], deadline: float
    ) -> tuple[dict[str, Any], bytes]:
        process = self.mine.get(backend)
        if process is None or not process.alive():
            if process is not None:
                self._end(backend)
            process = self.mine[backend] = self.processes.start(backend, path)
        try:
            return process.ask(order, max(0.0, deadline - time.monotonic()))
        except ChildEndedError:
            self._end(backend)
            raise

    def _end(self, backend: str) -> None:
        self.processes.end(self.mine.pop(backend))

    def _too_large(self, path: str) -> LimitError:
        size = self.processes.memory
        return LimitError(
            path,
            f"decoding it takes more than {size / 1e9:.1f} GB of memory",
            f"Allow more with --memory {size * 2 // 10**9 + 1}G, or fewer clips at once with "
            "--workers.",
        )


def _backends(path: str, decoders: tuple[str, ...]) -> list[str]:
    """The backends to try on a path, in order."""
    own = picture_backend(path)
    return [own] if own else [backend for backend in decoders if installed(backend)]


def _time_limit(path: str) -> float:
    """Seconds that a file may take.

    Raises:
        InputError: There is no such file, nothing in it, or it is no file that can be read again.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):  # of whose files only the chosen ones are read
            return BASE_SECONDS + len(os.listdir(path)) / FILES_PER_EXTRA_SECOND
    except (OSError, ValueError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise InputError(path, reason) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(path, "not a regular file")
    if not status.st_size:
        raise InputError(path, "the file is empty", "Copy or download it again.")
    return BASE_SECONDS + status.st_size / BYTES_PER_EXTRA_SECOND
