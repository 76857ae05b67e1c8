"""Standard streams that are always there and take any text."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import Any, TextIO

from vidfuse.errors import reason_of

BYTES_OR_ESCAPES = "vidfuse.bytes_or_escapes"  # name of an error handler of `codecs`


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


class _Messages(io.RawIOBase):
    """The lowest layer of a stream of messages, which drops those that cannot be written.

    Args:
        raw: What it writes to.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def write(self, data: Any, /) -> int:
        """Write bytes, or drop them."""
        try:
            written: int | None = self._raw.write(data)
        except OSError:
            written = None
        # None is also what a stream says that does not block and has no room.
        return len(data) if written is None else written

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The system's number of the stream."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """True for a terminal."""
        return self._raw.isatty()


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
    messages = io.BufferedWriter(_Messages(getattr(buffer, "raw", buffer)))
    return io.TextIOWrapper(messages, encoding, errors, line_buffering=True)


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes that text stands for, or where it stands for none, escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error(BYTES_OR_ESCAPES, _bytes_or_escapes)
