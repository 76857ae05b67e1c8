r"""Names in text that people and spreadsheets read: files and classes may be called anything.

JSON needs none of this: it has escapes of its own.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

# Surrogates, which no encoding takes; those from dc80 to dcff stand for bytes that are not text.
_SURROGATES = "\ud800-\udc7f\udd00-\udfff"
_SURROGATE = re.compile(f"[{_SURROGATES}]")
# Control characters (of both sets), separators of lines, and what turns the direction of writing.
_CONTROLS = (
    f"\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069{_SURROGATES}"
)
_CONTROL = re.compile(f"[{_CONTROLS}]")
_CONTROL_IN_LINES = re.compile(f"(?!\n)[{_CONTROLS}]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""Text as one line or cell that no terminal obeys: control characters as ``\n``, ``\x1b``, …

    Bytes of a name that are not text stay as they are.
    """
    return _CONTROL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """The same for text of several lines, which stay lines."""
    return _CONTROL_IN_LINES.sub(_escape, text)


def is_encodable(text: str) -> bool:
    """Whether text is Unicode, but for bytes of a file's name that are not text."""
    return _SURROGATE.search(text) is None


def csv_cell(value: Any) -> Any:
    """A value as a cell of CSV that no spreadsheet takes for a formula.

    Text that begins as formulas do, and is no number, gets a ``'`` before it. All other values stay
    as they are.
    """
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
