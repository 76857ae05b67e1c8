"""Rows of tables that people write: CSV with any delimiter, and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from vidfuse.data.files import describe_os_error
from vidfuse.errors import UserError

Row = Mapping[str, object]
"""Cells by the name of their column, in lower case."""

_DELIMITERS = ",;\t|"


class BadRowError(ValueError):
    """A row that cannot be used, with the reason."""


def read_text(file: Path) -> str:
    """The text of a file, UTF-8 or UTF-16 with a byte order mark.

    Raises:
        UserError: It cannot be read, or is not text.
    """
    try:
        data = file.read_bytes()
        # Spreadsheets save "Unicode text" as UTF-16, and put a byte order mark before UTF-8.
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {describe_os_error(error)}", "Check the path.") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: line {line} is not UTF-8 text", "Save it as UTF-8.") from None


def csv_rows(
    file: Path, text: str, delimiter: str, first_line: int = 1
) -> Iterator[tuple[int, Row | BadRowError]]:
    """The rows under the header of a CSV, each with the number of its line.

    Args:
        file: Where it stands, for messages.
        text: From its header on; blank lines are skipped.
        delimiter: Between cells.
        first_line: Number of the line with which ``text`` begins.

    Raises:
        UserError: A quote or another mark makes the rest unreadable.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] | None = None
    last_line = first_line - 1
    try:
        for cells in reader:
            line, last_line = last_line + 1, reader.line_num + first_line - 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip().casefold() for cell in cells]
            elif any("\n" in cell or "\r" in cell for cell in cells):
                reason = f"a cell runs on to line {last_line}; is a quote not closed?"
                yield line, BadRowError(reason)
            elif any(cell.strip() for cell in cells[len(header) :]):
                reason = f"{len(cells)} cells under {len(header)} columns"
                yield line, BadRowError(f"{reason}; put quotes around a cell with a '{delimiter}'")
            else:
                yield line, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        reason = f"{file}: line {last_line + 1} cannot be read ({error})"
        raise UserError(reason, "Is a quote not closed there?") from None


def find_delimiter(
    file: Path, text: str, columns: Collection[str], required: str, hint: str
) -> str:
    """The delimiter under which the header names most of the known columns.

    Args:
        file: Where it stands, for messages.
        text: The table; its header is the first line that is not blank.
        columns: The known columns, in lower case.
        required: The one that must be there.
        hint: What a header looks like, for the user.

    Raises:
        UserError: The required column is missing, or a known one occurs twice.
    """
    headline = next((line for line in text.splitlines() if line.strip(' \t,;"')), "")
    best, most = "", 0
    for delimiter in _DELIMITERS:
        known = [name for name in split_header(headline, delimiter) if name in columns]
        if len(known) != len(set(known)):
            raise UserError(f"{file}: a column occurs twice in the header: {headline}", hint)
        if required in known and len(known) > most:
            best, most = delimiter, len(known)
    if not best:
        first = headline[:200]
        raise UserError(f"{file}: there is no column '{required}' (first line: {first})", hint)
    return best


def split_header(line: str, delimiter: str) -> list[str]:
    """The names in a header, in lower case."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a cell longer than the module takes
        return []
    return [cell.strip().casefold() for cell in cells]


def jsonl_rows(
    file: Path, text: str, required: str, example: str
) -> Iterator[tuple[int, Row | BadRowError]]:
    """The objects of JSON lines, each with the number of its line.

    Args:
        file: Where it stands, for messages.
        text: One JSON object per line; blank lines are skipped.
        required: The key that at least one of them must have.
        example: What a line looks like, for the user.

    Raises:
        UserError: No line has the key (after the last one is given).
    """
    has_key = has_rows = False
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        has_rows = True
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRowError(f"not JSON ({error})")
            continue
        if not isinstance(row, dict):
            yield number, BadRowError("not a JSON object")
            continue
        row = {key.strip().casefold(): value for key, value in row.items()}
        has_key = has_key or required in row
        yield number, row
    if has_rows and not has_key:
        raise UserError(
            f"{file}: no line is a JSON object with a '{required}'", f"A line looks like {example}."
        )


def text_cell(row: Row, column: str) -> str | None:
    """The text of a cell, stripped; None where it is empty or there is none.

    Raises:
        BadRowError: It is neither text nor a number.
    """
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRowError(f"{column} is neither text nor a number: {value!r}")
    try:
        text = str(value).strip()
    except ValueError:  # an integer of more digits than Python writes
        raise BadRowError(f"{column} is too large a number") from None
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRowError(f"{column} is not Unicode text: {text!a}")  # JSON can say "\\ud800"
    return text or None


def seconds_cell(row: Row, column: str) -> float | None:
    """The time in a cell, in seconds; None where it is empty.

    Raises:
        BadRowError: It is no time: not a number, negative, or not finite.
    """
    text = text_cell(row, column)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise BadRowError(f"{column} is not a time in seconds: '{text[:100]}'")
    return seconds
