"""Files of a comparison: ``results.json``, ``results.csv`` and figures."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vidfuse.atomic import write_whole
from vidfuse.errors import UserError
from vidfuse.progress import Reporter
from vidfuse.streams import csv_cell

COLUMNS = (
    *("name", "kind", "grid", "order_aware", "reversal_aware"),
    *("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "macro_f1_low", "macro_f1_high"),
    *("difference", "difference_low", "difference_high", "p_value", "p_value_uncorrected"),
    *("shuffled", "shuffled_p_value", "tested_shuffled", "reversed"),
    *("parameters", "multiply_adds", "latency_ms", "latency_batched_ms", "training_seconds"),
)
OF_SEVERAL = ("backbone", "to_best", "to_best_low", "to_best_high", "to_best_p_value")
"""Columns that there are beside these where several encoders are compared."""
RESULTS = "results.json"


def refuse_results_of_another(folder: Path, dataset: Path | str) -> None:
    """See that the results of another dataset are not overwritten.

    Those of the same dataset are: what was fitted for them is kept, so the same command brings them
    back.

    Raises:
        UserError: The folder holds the results of another dataset.
    """
    try:
        before = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        other = str(before.get("dataset_path") or os.path.abspath(before["dataset"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return  # none, or what nobody can use
    if other != os.path.abspath(dataset):
        raise UserError(
            f"{folder} holds the comparison of another dataset ({other})",
            "Name another folder with --out, or remove this one.",
        )


def write_results(folder: Path, summary: dict[str, Any], reporter: Reporter) -> None:
    """Write everything to a folder.

    Args:
        folder: It exists.
        summary: The summary that ``compare`` returns.
        reporter: Receives progress updates and collects the time of each stage.
    """
    from vidfuse.comparison.plots import draw

    write_whole(folder / RESULTS, json.dumps(summary, indent=2) + "\n")
    table = io.StringIO()
    write_csv(table, summary)
    write_whole(folder / "results.csv", table.getvalue())
    draw(folder, summary)
    reporter.info(f"Results: {folder}")


def write_csv(file: IO[str], summary: dict[str, Any]) -> None:
    """One line for each head and each baseline; what does not apply is left empty."""
    columns = (*COLUMNS, *OF_SEVERAL) if "backbones" in summary else COLUMNS
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in summary["heads"]:
        writer.writerow(_flat(row | {"kind": "head"}, columns))
    for name, row in summary["baselines"].items():
        writer.writerow(_flat(row | {"name": name, "kind": "baseline"}, columns))


def _flat(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    cells = ((name, value) for name, value in _cells(row) if name in columns)
    return {name: csv_cell(value) for name, value in cells if value is not None}


def _cells(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name.endswith("_interval"):
            low, high = value or (None, None)
            stem = name.removesuffix("_interval")
            yield f"{stem}_low", low
            yield f"{stem}_high", high
        else:
            yield name, value
