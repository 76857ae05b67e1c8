"""The part of ``vidfuse predict`` that follows a stream."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from vidfuse.errors import UserError
from vidfuse.inference.config import TimelineConfig
from vidfuse.inference.live import PATIENCE, LivePredictor, live_records
from vidfuse.inference.predictor import find_model
from vidfuse.progress import Reporter
from vidfuse.results import LiveRecord
from vidfuse.streams import csv_cell, printable
from vidfuse.video.live import find_source


def predict_live(
    live: str | None,
    others: Mapping[str, object],
    models: Sequence[str] | None,
    settings: Mapping[str, Any],
    top: int,
    patience: float | None,
    form: str,
    reporter: Reporter,
) -> None:
    """Print decisions on a stream until it ends, or Ctrl-C does.

    Args:
        live: The source, as ``--live`` has it.
        others: Names and values of what does not go with it.
        models: One; None is the latest run.
        settings: Those of ``TimelineConfig`` that were given.
        top: How many classes each record lists.
        patience: Seconds without a frame after which the stream is given up; None is 30.
        form: ``text``, ``jsonl`` or ``csv``.
        reporter: Receives warnings.

    Raises:
        UserError: It is no live source, something else does not go with it, or the model cannot be
            used on streams.
        InputError: Nothing came for too long.
    """
    if live is None:
        raise UserError("--patience is for --live", "Leave it out.")
    if live.startswith("-"):  # the source was forgotten: what comes next is another option
        find_source(live)
    if unfit := [name for name, value in others.items() if value]:
        raise UserError(f"{unfit[0]} does not go with --live", "Leave out one of the two.")
    source = find_source(live)
    config = TimelineConfig.from_mapping(settings)
    if models is not None and len(models) > 1:
        raise UserError("a stream is followed by one model", "Name one with --model.")
    card = find_model(models[0] if models else None, reporter)
    predictor = LivePredictor(card, config, reporter)
    every, window = predictor.step / predictor.rate, predictor.length / predictor.rate
    on = "all that came" if predictor.causal else f"the last {window:.2f} s"
    reporter.info(f"Following {source.name}; every {every:.2f} s a decision on {on}")
    records = live_records(predictor, source, top, PATIENCE if patience is None else patience)
    try:
        with closing(records):
            _print(records, form)
    except KeyboardInterrupt:
        pass  # which is how it is meant to end


def _print(records: Iterable[LiveRecord], form: str) -> None:
    """Print each record as it comes."""
    table: csv.DictWriter[str] | None = None
    for record in records:
        if form == "jsonl":
            print(json.dumps(record.to_dict()), flush=True)
        elif form == "text":
            cells = [record.source, f"{record.time:.2f}", record.label, f"{record.score:.4f}"]
            print("\t".join(map(printable, [*cells, f"{record.delay:.3f}"])), flush=True)
        else:
            row = record.to_dict()
            row["top"] = "; ".join(f"{each.label}={each.score:.4f}" for each in record.top)
            if table is None:
                table = csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
                table.writeheader()
            table.writerow({name: csv_cell(value) for name, value in row.items()})
            sys.stdout.flush()
