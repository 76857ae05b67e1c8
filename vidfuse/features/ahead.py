"""Work in threads, a few pieces ahead of whoever takes the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")


def ahead(
    threads: Executor,
    function: Callable[[Piece], Outcome],
    pieces: Iterable[Piece],
    depth: int,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    finish: bool = False,
) -> Generator[Outcome]:
    """Outcomes in the order of the pieces; at most ``depth`` pieces are taken and not answered.

    Args:
        threads: Where the work is done.
        function: The work.
        pieces: What it is done on; taken one by one, so whoever makes them is held up, too.
        depth: How far to go ahead.
        waiting: Hears how long outcomes are waited for.
        finish: Whether pieces that were taken are still worked on if whoever takes the outcomes
            stops, or the next piece cannot be made.
    """
    pending: deque[Future[Outcome]] = deque()
    try:
        for piece in pieces:
            pending.append(threads.submit(function, piece))
            del piece  # a thread lets go of it as soon as it is done
            while pending and (len(pending) >= depth or pending[0].done()):
                with waiting():
                    outcome = pending.popleft().result()
                yield outcome
        while pending:
            with waiting():
                outcome = pending.popleft().result()
            yield outcome
    finally:
        for future in () if finish else pending:
            future.cancel()
