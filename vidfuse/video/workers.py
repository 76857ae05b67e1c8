"""Isolated decode processes: one bad file costs one record, never the run."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Self

from vidfuse.errors import InputError, UserError
from vidfuse.system import cores
from vidfuse.video.decoder import (
    installed,
    needs_timeline,
    not_installed,
    picture_backend,
    policy,
    wrong_frames,
)
from vidfuse.video.frames import FrameRequest, Frames, request_to_dict
from vidfuse.video.process import DecodeProcess, ProcessEndedError

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

    Raises:
        UserError: A pinned decoder is unknown or not installed.
    """

    def __init__(
        self,
        decoder: str = "auto",
        workers: int | None = None,
        time_limit: float | None = None,
        active: int | None = None,
    ) -> None:
        _, self.backends = policy(decoder)
        if len(self.backends) == 1 and not installed(self.backends[0]):
            raise not_installed(self.backends[0])
        self.workers = workers or cores()
        self.time_limit = time_limit
        self._processes = _Processes()
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


class _Processes:
    """All decode processes of a pool; after ``close`` there are no new ones."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[DecodeProcess] = set()
        self.closed = False

    def start(self, path: str) -> DecodeProcess:
        with self.lock:
            if self.closed:
                raise InputError(path, "not read, since reading was stopped")
            process = DecodeProcess()
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
                reasons.append(error.reason)
                hint = hint or error.hint
                if time.monotonic() > deadline:
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
            except ProcessEndedError:
                self.processes.end(process)

    def _read_with(self, backend: str, request: FrameRequest, deadline: float) -> Frames:
        order: dict[str, Any] = {"op": "read", "backend": backend, "keep": self.keep}
        order["request"] = request_to_dict(request) | {"path": os.path.abspath(request.path)}
        if needs_timeline(backend):
            # A file that PyAV cannot open has no timeline to check against.
            index = {"op": "index", "backend": backend, "path": order["request"]["path"]}
            header, _ = self._ask("pyav", request.path, index, deadline)
            if header.get("obstacle"):
                raise wrong_frames(request.path, backend, header["obstacle"])
            if "times" in header:
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
        process = self.mine.get(backend)
        if process is None or not process.alive():
            process = self.mine[backend] = self.processes.start(path)
        try:
            return process.ask(order, max(0.0, deadline - time.monotonic()))
        except ProcessEndedError as error:
            self.processes.end(process)
            del self.mine[backend]
            raise InputError(path, f"{backend} {error}") from error


def _backends(path: str, decoders: tuple[str, ...]) -> list[str]:
    """The backends to try on a path, in order."""
    own = picture_backend(path)
    return [own] if own else [backend for backend in decoders if installed(backend)]


def _time_limit(path: str) -> float:
    """Seconds that a file may take.

    Raises:
        InputError: There is no such file, or nothing in it.
    """
    try:
        if os.path.isdir(path):  # of whose files only the chosen ones are read
            return BASE_SECONDS + len(os.listdir(path)) / FILES_PER_EXTRA_SECOND
        size = os.stat(path).st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(path, f"cannot be read ({reason})") from error
    if not size:
        raise InputError(path, "the file is empty", "Copy or download it again.")
    return BASE_SECONDS + size / BYTES_PER_EXTRA_SECOND
