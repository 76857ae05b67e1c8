r"""Standard streams that are always there and take any text, and text that may be printed on them.

Files and classes may be called anything. JSON needs none of this: it has escapes of its own.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import re
import sys
from pathlib import PurePath
from typing import Any, TextIO

from vidfuse.errors import reason_of

BYTES_OR_ESCAPES = "vidfuse.bytes_or_escapes"  # name of an error handler of `codecs`
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


class OutputLostError(Exception):
    """Results cannot be written to standard output.

    Attributes:
        unread: Whether that is because their reader has closed the pipe, having seen enough.
        reason: What the system says.
    """

    def __init__(self, error: OSError) -> None:
        self.unread = error.errno == errno.EPIPE
        self.reason = reason_of(error)
        super().__init__(f"standard output cannot be written ({self.reason})")


class _Results(io.TextIOWrapper):
    """Standard output for results, of which the first that is lost raises ``OutputLostError``.

    The layers below are Python's own: an interruption does not find them between writing something
    and knowing that it was written, so no result is printed twice.
    """

    def write(self, text: str, /) -> int:
        """Write text."""
        try:
            return super().write(text)
        except OSError as error:
            raise self._lost(error) from error

    def flush(self) -> None:
        """Write what is left in buffers."""
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> OutputLostError:
        """Let all that follows lead nowhere, also what is in buffers when Python ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return OutputLostError(error)


class _Messages(io.BufferedWriter):
    """The layer below a stream of messages, which drops those that cannot be written."""

    def write(self, data: Any, /) -> int:
        """Write bytes, or drop them."""
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)

    def flush(self) -> None:
        """Write what is left, or try again with the next message."""
        with contextlib.suppress(OSError):
            super().flush()


def protect(*, results: bool = True) -> None:
    """Make the standard streams of a process safe; called once, when it starts.

    Messages on standard error that cannot be written are dropped, and work goes on. A result that
    cannot be raises ``OutputLostError``. A stream that was closed when the process started leads
    nowhere, as ``/dev/null``, so that no file is opened under its number. Names of files need not
    be valid text: their bytes are printed as they are. Any other text that the stream's encoding
    lacks is printed as ``\\ud800``.

    Args:
        results: Whether standard output carries results; else it carries messages, too.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
    sys.stdout = _guarded(sys.stdout, 1, results=results)
    sys.stderr = _guarded(sys.stderr, 2, results=False)


def _guarded(stream: TextIO | None, number: int, *, results: bool) -> TextIO:
    """A text stream in the place of one of Python's, which has None where it was closed."""
    buffer: Any
    if stream is None:
        encoding, raw = "utf-8", io.FileIO(number, "w", closefd=False)
        buffer = io.BufferedWriter(raw) if results else raw
    else:
        # Not by its number: the console of Windows takes text in another way than files do.
        encoding, buffer = stream.encoding, stream.buffer
    errors = BYTES_OR_ESCAPES if encoding.lower().startswith("utf") else "backslashreplace"
    if results:
        return _Results(buffer, encoding, errors, line_buffering=buffer.isatty())
    messages = _Messages(getattr(buffer, "raw", buffer))
    return io.TextIOWrapper(messages, encoding, errors, line_buffering=True)


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes that text stands for, or where it stands for none, escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error(BYTES_OR_ESCAPES, _bytes_or_escapes)


def printable(text: str) -> str:
    r"""Text as one line or cell that no terminal obeys: control characters as ``\n``, ``\x1b``, …

    Bytes of a name that are not text stay as they are.
    """
    return _CONTROL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """The same for text of several lines, which stay lines."""
    return _CONTROL_IN_LINES.sub(_escape, text)


def is_encodable(text: str) -> bool:
    """True for text that is Unicode, but for bytes of a file's name that are not text."""
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
