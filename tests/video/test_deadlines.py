"""Time limits: what is late is ended, what is not is left alone."""

from __future__ import annotations

import threading
import time

from vidfuse.video.deadlines import Deadlines


def test_only_what_is_late_is_ended() -> None:
    deadlines, ended = Deadlines(), threading.Event()
    spared = threading.Event()
    deadlines.start("slow", 60, spared.set)
    began = time.monotonic()
    deadlines.start("late", 0.05, ended.set)  # sooner than what the thread waits for
    assert ended.wait(5)
    assert time.monotonic() - began < 2
    deadlines.start("in time", 0.05, spared.set)
    deadlines.stop("in time")
    time.sleep(0.1)
    assert not spared.is_set()
    deadlines.stop("late")  # is gone already


def test_each_is_ended_once_and_one_thread_sees_to_all() -> None:
    deadlines, ended = Deadlines(), []
    before = threading.active_count()
    for number in range(50):
        deadlines.start(number, 0.01 * (number % 5), lambda number=number: ended.append(number))
    end = time.monotonic() + 5
    while len(ended) < 50 and time.monotonic() < end:
        time.sleep(0.01)
    assert sorted(ended) == list(range(50))
    assert threading.active_count() <= before + 1


def test_after_stop_nothing_is_ended_any_more() -> None:
    deadlines = Deadlines()
    for _ in range(200):
        late = False

        def end() -> None:
            nonlocal late
            late = True

        deadlines.start("one", 0.0005, end)
        time.sleep(0.0005)
        deadlines.stop("one")
        seen = late
        time.sleep(0.0002)
        assert late == seen
