"""Fits side by side, each process with one thread.

A process that the system ends costs one head, not the comparison.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vidfuse.atomic import ADVICE
from vidfuse.comparison.job_spec import JobSpec
from vidfuse.comparison.plan import Candidate, Task
from vidfuse.errors import (
    UnwritableError,
    UserError,
    first_sentence,
    os_error_hint,
    reason_of,
)
from vidfuse.machine import keep_memory
from vidfuse.rpc import Answer, Child, ChildEndedError, Order, serve

if TYPE_CHECKING:
    from vidfuse.comparison.fits import FitRunner

MOST_PROCESSES = 16
"""Unless told otherwise: each takes some 0.5 GB for torch alone."""
Request = Order


def answer(runner: FitRunner, request: Request) -> Answer:
    """Run a request.

    ``probe`` (``candidate``) answers ``seconds`` per epoch; ``fit`` (``candidate, seed, fold,
    epochs, until, file``) leaves a result in the file, or answers ``late``. What is wrong with a
    candidate is answered as ``error``; what would be wrong with any, as ``fatal`` with its
    ``hint``.
    """
    from vidfuse.comparison.fits import OutOfTimeError

    candidate = Candidate(**request["candidate"])
    try:
        if request["op"] == "probe":
            return {"seconds": runner.seconds_per_epoch(candidate)}
        task = Task(candidate, request["seed"], request["fold"])
        result = runner.run(task, request["epochs"], request["until"])
        result.save(Path(request["file"]))
        return {}
    except OutOfTimeError:
        return {"late": True}
    except UnwritableError as error:
        return {"fatal": error.message, "hint": error.hint}
    except UserError as error:
        return {"error": error.message}
    except OSError as error:
        file = error.filename or request.get("file", "")
        return {"fatal": f"{file}: {reason_of(error)}", "hint": os_error_hint(error)}
    except Exception as error:  # noqa: BLE001 - a head may be somebody else's, or need more memory
        if os.environ.get("VIDFUSE_DEBUG"):
            import traceback

            traceback.print_exc()
        return {"error": f"{type(error).__name__}: {first_sentence(error)}"}


class WorkerPool:
    """Runs requests, several at once.

    Args:
        job_spec: File of the ``JobSpec``.
        jobs: Number of processes; with 1, this one does it all.
    """

    def __init__(self, job_spec: Path, jobs: int) -> None:
        self.job_spec = job_spec
        self.jobs = jobs
        self._runner: FitRunner | None = None
        self._processes: list[Child | None] = [None] * jobs

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner = None  # and with it the features that it has mapped
        for process in self._processes:
            if process is not None:
                process.close()

    def run(
        self, requests: Iterable[Request], wanted: Callable[[Request], bool] = lambda _: True
    ) -> Iterator[tuple[Request, Answer]]:
        """Each request with its answer, in the order in which they are ready.

        Args:
            requests: Requests, in this order.
            wanted: Asked before each request is begun.

        Raises:
            UserError: Something is wrong that would be wrong with any request.
        """
        pairs = self._alone(requests, wanted) if self.jobs == 1 else self._beside(requests, wanted)
        for request, answered in pairs:
            if "fatal" in answered:
                raise UserError(answered["fatal"], answered.get("hint") or ADVICE)
            yield request, answered

    def _alone(
        self, requests: Iterable[Request], wanted: Callable[[Request], bool]
    ) -> Iterator[tuple[Request, Answer]]:
        from vidfuse.comparison.fits import FitRunner

        if self._runner is None:
            self._runner = FitRunner(JobSpec.load(self.job_spec))
        for request in requests:
            if wanted(request):
                yield request, answer(self._runner, request)

    def _beside(
        self, requests: Iterable[Request], wanted: Callable[[Request], bool]
    ) -> Iterator[tuple[Request, Answer]]:
        pending = deque(requests)
        done: queue.Queue[tuple[Request, Answer] | Exception | None] = queue.Queue()

        def drive(index: int) -> None:
            try:
                while True:
                    try:
                        request = pending.popleft()
                    except IndexError:  # all are taken
                        return
                    if wanted(request):
                        done.put((request, self._ask(index, request)))
            except Exception as error:  # noqa: BLE001 - raised again where answers are taken
                done.put(error)
            finally:
                done.put(None)

        threads = [threading.Thread(target=drive, args=(i,), daemon=True) for i in range(self.jobs)]
        for thread in threads:
            thread.start()
        at_work = len(threads)
        try:
            while at_work:
                with contextlib.suppress(queue.Empty):
                    # With a time limit, because Ctrl-C does not end an endless wait on Windows.
                    item = done.get(timeout=0.5)
                    if item is None:
                        at_work -= 1
                    elif isinstance(item, Exception):
                        raise item
                    else:
                        yield item
        finally:
            pending.clear()

    def _ask(self, index: int, request: Request) -> Answer:
        process = self._processes[index]
        if process is None:
            try:
                process = Child("vidfuse.comparison.workers:main", [str(self.job_spec)])
            except OSError as error:  # no room for one more process, or for its pipes
                reason = f"a process cannot be started ({reason_of(error)})"
                return {"fatal": reason, "hint": os_error_hint(error)}
            self._processes[index] = process
        try:
            return process.ask(request)[0]
        except ChildEndedError as error:
            process.close()
            self._processes[index] = None
            return {"error": f"the process that fitted it {error}"}


def main(job_spec: str) -> None:
    """Serve on standard input and output, until the program is gone.

    Args:
        job_spec: File of the ``JobSpec``.
    """
    from vidfuse.comparison.fits import FitRunner

    keep_memory()  # every step of training needs the same blocks again
    runner = FitRunner(JobSpec.load(Path(job_spec)))
    serve(lambda request: answer(runner, request))
