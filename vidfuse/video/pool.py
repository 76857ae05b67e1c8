"""Isolated decode processes: one bad file costs one record, never the run."""

from __future__ import annotations

import os
import queue
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from vidfuse.data.content import Stamp
from vidfuse.data.files import describe_os_error
from vidfuse.errors import InputError, UserError
from vidfuse.machine import cores, memory_share
from vidfuse.rpc import OUT_OF_MEMORY, Answer, Child, ChildEndedError, Order
from vidfuse.video.backends import BACKENDS, image_backend, installed, not_installed, policy
from vidfuse.video.decoder import wrong_frames
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.stretch import Hole, Stretch

# A clip may take this long, and longer the larger its file is (an hour of video is about 1 GB).
BASE_SECONDS = 120.0
BYTES_PER_EXTRA_SECOND = 2_000_000
FILES_PER_EXTRA_SECOND = 50
RELEASE_SECONDS = 10.0


class LimitError(InputError):
    """Reading a clip takes more time or memory than it may; another decoder needs as much."""


class DecodePool:
    """Several decode processes that read clips side by side.

    Args:
        decoder: A key of ``backends.POLICIES``.
        workers: How many clips are read at once; None is one per core.
        time_limit: Seconds that one clip may take; None grows with the file's size.
        active: How many of the workers read until `grow` allows more; None is all.
        memory: Bytes that one clip may take; None is a share of the machine's.

    Attributes:
        keep: Whether each worker keeps the clip open that it read last, for the next request.
        running: The decode processes that there are.

    Raises:
        UserError: A pinned decoder is unknown or not installed.
    """

    keep: ClassVar[bool] = False

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
        self.memory = memory or memory_share(self.workers)
        self._threads = ThreadPoolExecutor(self.workers, "decode")
        # Last in, first out: where few clips are read, few processes are started.
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        self.active = 0
        self.grow(active or self.workers)
        self._lock = threading.Lock()
        self.running: set[Child] = set()
        self._closed = False

    def grow(self, active: int) -> None:
        """Let so many of the workers read at once; those that read already go on."""
        for _ in range(self.active, min(active, self.workers)):
            self._free.put(Slot(self, self.keep))
            self.active += 1

    def submit(self, request: FrameRequest) -> Future[Frames]:
        """Read one clip in a decode process, as soon as one is free.

        The future raises ``InputError`` where the clip cannot be read; its message says why.
        """
        return self._threads.submit(self._read, request)

    def _read(self, request: FrameRequest) -> Frames:
        slot = self._free.get()
        try:
            return slot.read(request)
        finally:
            self._free.put(slot)

    def stretches(self, path: str, fps: float) -> tuple[list[Stretch], Stamp | None]:
        """The stretches of a long video, and the stamp that it had meanwhile.

        Args:
            path: The video or frame folder.
            fps: Frames per second of a clip that does not say.

        Returns:
            The stretches, and the file's stamp; None where that changed.

        Raises:
            InputError: It cannot be read.
        """
        backend = image_backend(path) or "pyav"
        order: Order = {"op": "stretches", "backend": backend, "path": os.path.abspath(path)}
        answer, _ = self._order(path, order | {"fps": fps}, 0.0, backend)
        stamp = Stamp(*answer["stamp"]) if answer["stamp"] else None
        stretches = [Stretch(*each) for each in answer["stretches"]]
        found = [replace(s, holes=tuple(Hole(*hole) for hole in s.holes)) for s in stretches]
        return found, stamp

    def order(self, path: str, order: Order, seconds: float = 0.0) -> Future[tuple[Answer, bytes]]:
        """Have a process carry out an order about a video, with PyAV, as soon as one is free.

        Args:
            path: The video.
            order: As ``worker.answer`` takes it.
            seconds: What it may take beyond what reading a file of this size may.

        Returns:
            The answer, and the bytes that follow it. The future raises ``InputError`` where the
            order cannot be carried out; its message says why.
        """
        return self._threads.submit(self._order, path, order, seconds)

    def _order(
        self, path: str, order: Order, seconds: float, backend: str = "pyav"
    ) -> tuple[Answer, bytes]:
        slot = self._free.get()
        try:
            return slot.order(path, order, seconds, backend)
        finally:
            self._free.put(slot)

    def map(
        self, requests: Iterable[FrameRequest]
    ) -> Iterator[tuple[FrameRequest, Frames | InputError]]:
        """Read clips side by side; answers come as they are ready, a few at a time in memory."""
        source = iter(requests)
        pending: dict[Future[Frames], FrameRequest] = {}
        try:
            while True:
                # So much to do that no process waits for its next order.
                for request in islice(source, max(0, 2 * self.active - len(pending))):
                    pending[self.submit(request)] = request
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                while done:  # a set that kept its answers would double what is in memory
                    future = done.pop()
                    request, error = pending.pop(future), future.exception()
                    if error is not None and not isinstance(error, InputError):
                        raise error
                    yield request, error or future.result()
        finally:
            for future in pending:
                future.cancel()

    def start(self, backend: str, path: str) -> Child:
        """Start a decode process for a path.

        Raises:
            InputError: The pool was closed.
        """
        with self._lock:
            if self._closed:
                raise InputError(path, "not read, since reading was stopped")
            process = Child("vidfuse.video.worker:main", [backend, str(self.memory)])
            self.running.add(process)
            return process

    def end(self, process: Child) -> None:
        """End a decode process, also when it is busy."""
        with self._lock:
            self.running.discard(process)
        process.close()

    def close(self) -> None:
        """End all decode processes, also those that are busy; no new ones are started."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
        for process in list(self.running):
            self.end(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(eq=False)
class Slot:
    """The decode processes of one worker: one per backend, since two do not share a process.

    Attributes:
        pool: Starts and ends them, and says how much they may take.
        keep: Whether the clip that was read last stays open, for the next request.
        processes: Backend → its process.
        abandoned: True when nobody waits for what it reads.
    """

    pool: DecodePool
    keep: bool = False
    processes: dict[str, Child] = field(default_factory=dict)
    abandoned: bool = False

    def read(self, request: FrameRequest) -> Frames:
        """Read a clip with the first backend that can.

        Raises:
            InputError: None can; the message says why the first could not.
        """
        limit = self.pool.time_limit or _time_limit(request.path)
        deadline = time.monotonic() + limit
        reasons: list[str] = []
        hint: str | None = None
        own = image_backend(request.path)
        for backend in [own] if own else filter(installed, self.pool.backends):
            try:
                frames = self._read_with(backend, request, deadline)
            except InputError as error:
                hint = hint if reasons else error.hint
                reasons.append(error.reason)
                if isinstance(error, LimitError):
                    break
                continue
            if reasons:
                warning = f"{self.pool.backends[0]} could not read it: {reasons[0]}"
                frames = replace(frames, warnings=[warning, *frames.warnings])
            return frames
        raise InputError(request.path, reasons[0], hint)

    def order(self, path: str, order: Order, seconds: float, backend: str) -> tuple[Answer, bytes]:
        """Carry out an order in the process of a backend; see `DecodePool.order`.

        Raises:
            InputError: It cannot be carried out.
        """
        limit = self.pool.time_limit or _time_limit(path) + seconds
        return self._ask(backend, path, order, time.monotonic() + limit)

    def release(self) -> None:
        """Close the clip that was kept open."""
        for backend, process in list(self.processes.items()):
            try:
                process.ask({"op": "release"}, RELEASE_SECONDS)
            except ChildEndedError:
                self.pool.end(self.processes.pop(backend))

    def abandon(self) -> None:
        """End what it reads."""
        self.abandoned = True
        for process in list(self.processes.values()):
            self.pool.end(process)

    def _read_with(self, backend: str, request: FrameRequest, deadline: float) -> Frames:
        order: Order = {"op": "read", "backend": backend, "keep": self.keep}
        order["request"] = asdict(request) | {"path": os.path.abspath(request.path)}
        if BACKENDS[backend].needs_frame_times:
            # PyAV opens only containers that lead to no other file, which these do not look at.
            index = {"op": "index", "backend": backend, "path": order["request"]["path"]}
            header, _ = self._ask("pyav", request.path, index, deadline)
            if header["obstacle"]:
                raise wrong_frames(request.path, backend, header["obstacle"])
            order["frame_times"] = {"times": header["times"], "end": header["end"]}
        header, payload = self._ask(backend, request.path, order, deadline)
        frames = frames_of(header["frames"], payload)
        if len(frames.pixels) not in (0, len(frames.times)) or frames.pixels.shape[3] != 3:
            raise InputError(request.path, f"{backend} gave frames {frames.pixels.shape}")
        return frames

    def _ask(self, backend: str, path: str, order: Order, deadline: float) -> tuple[Answer, bytes]:
        """Ask a decode process; once more where somebody else ended it.

        Raises:
            InputError: The file cannot be read, the process crashed, or a limit was reached.
            UserError: The backend cannot be used here.
        """
        again = True
        while True:
            process = self.processes.get(backend)
            if process is None or not process.alive():
                if process is not None:
                    self.pool.end(process)
                process = self.processes[backend] = self.pool.start(backend, path)
            try:
                answer, payload = process.ask(order, max(0.0, deadline - time.monotonic()))
                break
            except ChildEndedError as error:
                self.pool.end(process)
                self.processes.pop(backend, None)
                if self.abandoned or not (again and error.from_outside):
                    raise self._ended(backend, path, error) from error
                again = False
        if "out_of_memory" in answer:
            self.pool.end(self.processes.pop(backend))  # what it holds is in pieces
            raise self._too_large(path)
        if "user_error" in answer:
            raise UserError(*answer["user_error"])
        if "input_error" in answer:
            raise InputError(path, *answer["input_error"])
        return answer, payload

    def _ended(self, backend: str, path: str, error: ChildEndedError) -> InputError:
        """The error of a clip whose decode process ended."""
        if error.late:
            seconds = self.pool.time_limit or _time_limit(path)
            reason = f"{backend} took longer than {seconds:g} s to decode it"
            return LimitError(path, reason, "Allow more with --time-limit.")
        if error.status == OUT_OF_MEMORY:
            return self._too_large(path)
        return InputError(path, f"{backend} {error} on it")

    def _too_large(self, path: str) -> LimitError:
        size = self.pool.memory
        return LimitError(
            path,
            f"decoding it takes more than {size / 1e9:.1f} GB of memory",
            f"Allow more with --memory {size * 2 // 10**9 + 1}G, or fewer clips at once with "
            "--workers.",
        )


def frames_of(header: dict[str, Any], payload: bytes) -> Frames:
    """The frames that a decode process answered: the inverse of ``Frames.header``."""
    fields = dict(header)
    shape = fields.pop("shape")
    fields["times"] = np.asarray(fields["times"], dtype=np.float64)
    fields["stamp"] = Stamp(*fields["stamp"]) if fields["stamp"] else None
    return Frames(pixels=np.frombuffer(payload, np.uint8).reshape(shape), **fields)


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
