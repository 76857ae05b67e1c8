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
from vidfuse.errors import (
    UnwritableError,
    UserError,
    first_sentence,
    os_error_hint,
    reason_of,
)
from vidfuse.evaluation.compare.plan import Task
from vidfuse.evaluation.compare.workload import Workload
from vidfuse.rpc import Answer, Child, ChildEndedError, Order, serve
from vidfuse.system import keep_memory

if TYPE_CHECKING:
    from vidfuse.evaluation.compare.fits import Bench

MOST_PROCESSES = 16
"""Unless told otherwise: each takes some 0.5 GB for torch alone."""
Request = Order


def answer(bench: Bench, request: Request) -> Answer:
    """Carry out a request.

    ``probe`` (``head``) answers ``seconds`` per epoch; ``fit`` (``head, seed, fold, epochs, file``)
    leaves an outcome in the file. What is wrong with a head is answered as ``error``; what would
    be wrong with any, as ``fatal`` with its ``hint``.
    """
    try:
        if request["op"] == "probe":
            return {"seconds": bench.seconds_per_epoch(request["head"])}
        task = Task(request["head"], request["seed"], request["fold"])
        bench.carry_out(task, request["epochs"]).save(Path(request["file"]))
        return {}
    except UnwritableError as error:
        return {"fatal": error.message, "hint": error.hint}
    except UserError as error:
        return {"error": error.message}
    except OSError as error:
        file = error.filename or request.get("file", "")
        return {"fatal": f"{file}: {reason_of(error)}", "hint": os_error_hint(error)}
    except Exception as error:  # a head may be somebody else's, and need more memory than there is
        if os.environ.get("VIDFUSE_DEBUG"):
            import traceback

            traceback.print_exc()
        return {"error": f"{type(error).__name__}: {first_sentence(error)}"}


class Crew:
    """Carries out requests, several at once.

    Args:
        workload: File of the ``Workload``.
        jobs: How many processes; with 1, this one does it all.
    """

    def __init__(self, workload: Path, jobs: int) -> None:
        self.workload = workload
        self.jobs = jobs
        self._bench: Bench | None = None
        self._processes: list[Child | None] = [None] * jobs

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._bench = None  # and with it the features that it has mapped
        for process in self._processes:
            if process is not None:
                process.close()

    def run(
        self, requests: Iterable[Request], wanted: Callable[[Request], bool] = lambda _: True
    ) -> Iterator[tuple[Request, Answer]]:
        """Each request with its answer, in the order in which they are ready.

        Args:
            requests: What to do, in this order.
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
        from vidfuse.evaluation.compare.fits import Bench

        if self._bench is None:
            self._bench = Bench(Workload.load(self.workload))
        for request in requests:
            if wanted(request):
                yield request, answer(self._bench, request)

    def _beside(
        self, requests: Iterable[Request], wanted: Callable[[Request], bool]
    ) -> Iterator[tuple[Request, Answer]]:
        pending = deque(requests)
        done: queue.Queue[tuple[Request, Answer] | Exception | None] = queue.Queue()

        def drive(place: int) -> None:
            try:
                while True:
                    try:
                        request = pending.popleft()
                    except IndexError:  # all are taken
                        return
                    if wanted(request):
                        done.put((request, self._ask(place, request)))
            except Exception as error:  # raised again where the answers are taken
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

    def _ask(self, place: int, request: Request) -> Answer:
        process = self._processes[place]
        if process is None:
            try:
                process = Child("vidfuse.evaluation.compare.processes:main", [str(self.workload)])
            except OSError as error:  # no room for one more process, or for its pipes
                reason = f"a process cannot be started ({reason_of(error)})"
                return {"fatal": reason, "hint": os_error_hint(error)}
            self._processes[place] = process
        try:
            return process.ask(request)[0]
        except ChildEndedError as error:
            process.close()
            self._processes[place] = None
            return {"error": f"the process that fitted it {error}"}


def main(workload: str) -> None:
    """Serve on standard input and output, until the program is gone.

    Args:
        workload: File of the ``Workload``.
    """
    from vidfuse.evaluation.compare.fits import Bench

    keep_memory()  # every step of training needs the same blocks again
    bench = Bench(Workload.load(Path(workload)))
    serve(lambda request: answer(bench, request))
