"""Work in threads, a few pieces ahead of whoever takes the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from typing import TypeVar

Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")


def ahead(
    threads: Executor,
    function: Callable[[Piece], Outcome],
    pieces: Iterable[Piece],
    depth: int,
    waiting: Callable[[], AbstractContextManager[None]],
) -> Iterator[Outcome]:
    """Outcomes in the order of the pieces; at most ``depth`` pieces are taken and not answered.

    Args:
        threads: Where the work is done.
        function: The work.
        pieces: What it is done on; taken one by one, so whoever makes them is held up, too.
        depth: How far to go ahead.
        waiting: Hears how long outcomes are waited for.
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
        for future in pending:
            future.cancel()
