"""Results on stdout: text, JSON, JSON lines and CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import typer

from vidfuse.text import csv_cell, printable, printable_lines

Record = dict[str, Any]
FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Form of the result on stdout.")
]
RecordFormatOption = Annotated[
    Literal["text", "json", "jsonl", "csv"],
    typer.Option("--format", help="Form of the records on stdout."),
]


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2))


def print_text(text: str) -> None:
    """Print text of several lines with whatever names in it."""
    print(printable_lines(text))


def write_records(records: Iterable[Record], form: str) -> Iterator[Record]:
    """Print records one by one as they come (all but ``json``), and pass them on."""
    writer = None
    for record in records:
        if form == "jsonl":
            print(json.dumps(record), flush=True)
        elif form == "text":
            print(_line(record), flush=True)
        elif form == "csv":
            if writer is None:
                writer = csv.DictWriter(sys.stdout, list(record), lineterminator="\n")
                writer.writeheader()
            writer.writerow(_flat(record))
            sys.stdout.flush()
        yield record


def _line(record: Record) -> str:
    """Path, label and score; of a failure neither of the two, but why in a fourth column."""
    if record["ok"]:
        cells = [record["path"], record["label"], f"{record['score']:.4f}"]
    else:
        cells = [record["path"], "", "", record["error"]]
    return "\t".join(map(printable, cells))


def _flat(record: Record) -> Record:
    top = "; ".join(f"{each['label']}={each['score']:.4f}" for each in record["top"])
    flat = record | {"top": top, "warnings": "; ".join(record["warnings"])}
    if "looks" in record:
        flat["looks"] = "; ".join(f"{time:.3f}" for time in record["looks"])
    return {name: csv_cell(value) for name, value in flat.items()}


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    lines = [tuple(map(printable, line)) for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def human_size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_count(count: int) -> str:
    """A number to three digits, in the unit that fits: 6.15 k, 798 k, 12.6 M."""
    rounded = float(f"{count:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:#.3g}".rstrip(".") + f" {unit}"
    return str(count)
