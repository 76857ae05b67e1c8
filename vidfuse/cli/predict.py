"""``vidfuse predict``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import (
    CacheOption,
    DeviceOption,
    ModelOption,
    PrecisionOption,
    TimeLimitOption,
    WorkersOption,
    chosen_models,
)
from vidfuse.cli.output import RecordFormatOption, print_json, write_records

app = new_app()


@app.command(cls=Command)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS", help="Videos, folders, globs, or - for a list on standard input."
        ),
    ],
    model: ModelOption = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", help="Classes listed per record.", min=1)
    ] = 5,
    format: RecordFormatOption = "text",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    cache: CacheOption = None,
    use_cache: Annotated[
        bool, typer.Option("--use-cache/--no-cache", help="Look features up, and keep them.")
    ] = True,
    workers: WorkersOption = None,
    time_limit: TimeLimitOption = None,
) -> None:
    """Predict the class of clips: one record per input, in order.

    In text form a record is a line with path, class and score, separated by tabs. Exits with 1
    where an input could not be read; the others are predicted all the same.
    """
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.data.files import expand_inputs
    from vidfuse.timing import Timings

    progress, timings = ConsoleProgress(), Timings(BEGAN)
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    records = api.predict(
        expand_inputs(inputs, sys.stdin),
        model=chosen_models(model),
        top=top,
        progress=progress,
        timings=timings,
        device=device,
        precision=precision,
        cache=cache,
        use_cache=use_cache,
        workers=workers,
        time_limit=time_limit,
    )
    kept = []
    failed = False
    for record in write_records(records, format):
        failed = failed or not record["ok"]
        if format == "json":
            kept.append(record)
        if not record["ok"]:
            progress.warn_once(f"{record['path']}: {record['error']}")
        for warning in record["warnings"]:
            progress.warn(f"{record['path']}: {warning}")
    if format == "json":
        print_json({"records": kept, "timings": timings.to_dict()})
    if failed:
        raise typer.Exit(1)
