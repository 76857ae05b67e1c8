"""What a person at a terminal sees of long work."""

from __future__ import annotations

import io
import sys

import pytest

from vidfuse.cli.console import ConsoleReporter


class Screen(io.StringIO):
    def isatty(self):
        return True


ROWS = [("lstm", "0.812", "3 of 15"), ("mean", "0.400", "4 of 15")]


def work(reporter):
    reporter.start("Comparing", 2)
    reporter.board(("head", "accuracy", "folds"), [("lstm", "", "0 of 15")])
    reporter.advance(note="lstm")
    reporter.board(("head", "accuracy", "folds"), ROWS)
    reporter.advance(note="mean")
    reporter.finish()


def look_at(monkeypatch):
    # Within the test: pytest puts its own stream in place between fixtures and test.
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", Screen())
    return sys.stderr


def test_a_table_stands_above_the_bar_on_a_terminal(monkeypatch):
    screen = look_at(monkeypatch)
    reporter = ConsoleReporter()
    work(reporter)
    shown = screen.getvalue()
    for text in ("head", "lstm", "0.812", "4 of 15", "Comparing"):
        assert text in shown
    assert shown.index("0.812") < shown.rindex("Comparing")
    before = len(shown)
    reporter.board(("head",), [("late",)])
    assert len(screen.getvalue()) == before, "there is no task that it could stand above"


def test_a_tall_table_shows_its_first_rows(monkeypatch):
    screen = look_at(monkeypatch)
    monkeypatch.setenv("LINES", "12")
    reporter = ConsoleReporter()
    reporter.start("Comparing", 1)
    reporter.board(("head", "accuracy"), [(f"head{i:02}", "0.5") for i in range(30)])
    reporter.finish()
    assert "head04" in screen.getvalue()
    assert "head05" not in screen.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_it_elsewhere_or_when_quiet(monkeypatch, terminal):
    place = Screen() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", place)
    if terminal:
        monkeypatch.setenv("VIDFUSE_QUIET", "1")
    work(ConsoleReporter())
    assert place.getvalue() == ""
