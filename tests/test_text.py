"""Names that terminals and spreadsheets would obey."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidfuse.streams import csv_cell, printable, printable_lines


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name é 走る.mp4", "plain name é 走る.mp4"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31mred", r"\x9b31mred"),  # the same in one character
        ("clip\u202e4pm.exe", r"clip\u202e4pm.exe"),
        ("two\u2028lines", r"two\u2028lines"),
        ("\x7f", r"\x7f"),
        ("caf\udce9.mp4", "caf\udce9.mp4"),  # a byte that is not text
        ("a\ud800b\udfff", r"a\ud800b\udfff"),  # halves of characters
        ("\u0645\u06cc\u200c\u062f\u0648\u062f", "\u0645\u06cc\u200c\u062f\u0648\u062f"),
    ],
)
def test_a_name_is_one_line_that_no_terminal_obeys(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_lines_stay_lines() -> None:
    assert printable_lines("first\x1b[2J\nsecond\n") == "first\\x1b[2J\nsecond\n"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("+run", "'+run"),
        ("\t=1", "'\t=1"),
        (Path("=a.mp4"), "'=a.mp4"),
        ("-1.5", "-1.5"),
        ("+3e2", "+3e2"),
        (-1.5, -1.5),
        (None, None),
        (True, True),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_cell_is_no_formula_and_numbers_stay_numbers(value: object, cell: object) -> None:
    assert csv_cell(value) == cell
