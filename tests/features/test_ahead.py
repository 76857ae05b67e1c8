"""Working ahead: in order, bounded, and stopped when nobody takes the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest

from vidfuse.features.ahead import ahead


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


def test_outcomes_come_in_order(threads: ThreadPoolExecutor) -> None:
    def slower_first(number: int) -> int:
        time.sleep(0.02 / (number + 1))
        return -number

    assert list(ahead(threads, slower_first, range(20), 5, nullcontext)) == [-n for n in range(20)]


def test_no_more_than_the_depth_is_taken(threads: ThreadPoolExecutor) -> None:
    taken, gates = [], [threading.Event() for _ in range(10)]

    def pieces() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    def wait(number: int) -> int:
        assert gates[number].wait(30)
        return number

    outcomes = ahead(threads, wait, pieces(), 4, nullcontext)
    for answered in range(10):
        gates[answered].set()
        assert next(outcomes) == answered
        assert len(taken) <= answered + 4


def test_an_error_comes_out_and_what_waits_is_dropped() -> None:
    done = []

    def work(number: int) -> int:
        done.append(number)
        if number == 1:
            raise ValueError("one")
        return number

    with ThreadPoolExecutor(1) as single:
        outcomes = ahead(single, work, range(100), 3, nullcontext)
        with pytest.raises(ValueError, match="one"):
            list(outcomes)
    assert len(done) <= 4


def test_what_was_taken_can_be_finished() -> None:
    taken, done, four, gate = [], [], threading.Event(), threading.Event()

    def four_and_more() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number
            if number == 2:
                four.set()

    def work(number: int) -> None:
        assert (gate if number else four).wait(30)
        done.append(number)

    with ThreadPoolExecutor(1) as single:
        outcomes = ahead(single, work, four_and_more(), 4, finish=True)
        next(outcomes)
        outcomes.close()
        gate.set()
    assert done == taken == [0, 1, 2, 3]

    def pieces() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    done.clear()
    with ThreadPoolExecutor(1) as single, pytest.raises(KeyboardInterrupt):
        list(ahead(single, done.append, pieces(), 8, finish=True))
    assert done == [0, 1, 2]


def test_leaving_early_drops_what_waits() -> None:
    done, gate = [], threading.Event()

    def work(number: int) -> int:
        if number:
            gate.wait(30)
        done.append(number)
        return number

    with ThreadPoolExecutor(1) as single:
        outcomes = ahead(single, work, range(100), 4, nullcontext)
        assert next(outcomes) == 0
        outcomes.close()
        gate.set()
    assert done in ([0], [0, 1])


def test_waiting_is_told(threads: ThreadPoolExecutor) -> None:
    waits = []

    @contextmanager
    def told() -> Iterator[None]:
        began = time.perf_counter()
        yield
        waits.append(time.perf_counter() - began)

    list(ahead(threads, lambda _: time.sleep(0.05), [0], 1, told))
    assert sum(waits) > 0.03
