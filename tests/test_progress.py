"""The stages of a command, by a clock that the test winds."""

from __future__ import annotations

from contextlib import suppress

import pytest

from vidfuse.progress import Reporter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_stage_stands_still_while_another_within_it_is_measured(clock: Clock) -> None:
    reporter = Reporter(clock=clock)
    with reporter.measure("forward"):
        clock.pass_seconds(1)
        with reporter.measure("imports"):
            clock.pass_seconds(5)
            with reporter.measure("model"):
                clock.pass_seconds(2)
            clock.pass_seconds(0.5)
        clock.pass_seconds(3)
    assert reporter.seconds == {"other": 0, "forward": 4, "imports": 5.5, "model": 2}


def test_stages_add_up_to_the_total(clock: Clock) -> None:
    reporter = Reporter(began=97.0, clock=clock)  # for 3 seconds the command was being imported
    clock.pass_seconds(0.25)
    for _ in range(3):
        with reporter.measure("decode"):
            clock.pass_seconds(1.5)
        clock.pass_seconds(0.125)
        with suppress(ZeroDivisionError), reporter.measure("forward"):
            clock.pass_seconds(2)
            raise ZeroDivisionError
    told = reporter.timings()
    assert told == {"imports": 3, "decode": 4.5, "forward": 6, "other": 0.625, "total": 14.125}
    assert sum(told.values()) == 2 * told["total"]


def test_it_adds_up_in_the_middle_of_a_stage_as_well(clock: Clock) -> None:
    reporter = Reporter(clock=clock)
    with reporter.measure("training"):
        clock.pass_seconds(2)
        assert reporter.timings() == {"training": 2, "other": 0, "total": 2}
        clock.pass_seconds(1)
    assert reporter.timings() == {"training": 3, "other": 0, "total": 3}


def test_a_moment_is_no_stage(clock: Clock) -> None:
    reporter = Reporter(clock=clock)
    reporter.expect("write")
    clock.pass_seconds(2)
    reporter.note("first_step", clock())
    clock.pass_seconds(1)
    reporter.note("first_step", clock())
    assert reporter.timings() == {"write": 0, "other": 3, "first_step": 2, "total": 3}
    assert "first_step" not in reporter.seconds
