"""``vidfuse predict``."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import (
    CacheOption,
    DeviceOption,
    MemoryOption,
    ModelOption,
    PrecisionOption,
    TimeLimitOption,
    WorkersOption,
    chosen_models,
)
from vidfuse.cli.output import RecordFormatOption, print_json, write_records
from vidfuse.errors import InputError, UserError

app = new_app()
HELP = """\
Predict the class of clips: one record per input, in order.

In text form a record is a line with path, class and score, separated by tabs; of an input that
could not be read, class and score are empty, and a fourth column says why. Exits with 1 then; the
others are predicted all the same. With - and with --watch the model stays loaded, and each clip is
answered as soon as it is there.
"""


@app.command(cls=Command, help=HELP)
def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLIPS", help="Videos, folders, globs, or - for a list on standard input."
        ),
    ] = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(
            "--watch",
            metavar="FOLDER",
            help="Predict the videos in a folder, and then each that comes, until Ctrl-C.",
        ),
    ] = None,
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
    memory: MemoryOption = None,
) -> None:
    """The command ``vidfuse predict``."""
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.timing import Timings

    progress, timings = ConsoleProgress(), Timings(BEGAN)
    records = api.predict(
        _clips(inputs or [], watch or []),
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
        memory=memory,
    )
    kept = []
    failed = False
    try:
        if watch:
            progress.info(f"Watching {watch[0]}; Ctrl-C ends it")
        for record in write_records(records, format):
            failed = failed or not record["ok"]
            if format == "json":
                kept.append(record)
            if not record["ok"]:
                progress.warn_once(f"{record['path']}: {record['error']}")
            for warning in record["warnings"]:
                progress.warn(f"{record['path']}: {warning}")
    except KeyboardInterrupt:
        if not watch:
            raise
    if format == "json":
        print_json({"records": kept, "timings": timings.to_dict()})
    if failed:
        raise typer.Exit(1)


def _clips(inputs: list[str], folders: list[str]) -> Iterator[Path | InputError | None]:
    """What to predict, with None where the next clip is not there yet.

    Raises:
        UserError: There is nothing to predict, or no folder to watch.
    """
    from vidfuse.data.arriving import as_it_comes, watch
    from vidfuse.data.files import expand_inputs

    if len(folders) > 1:
        raise UserError(
            f"--watch takes one folder, and {len(folders)} were given",
            "Watch a folder that holds them all, or run a vidfuse predict for each.",
        )
    if bool(inputs) is bool(folders):
        what = "both clips and a folder to watch" if inputs else "missing argument 'CLIPS'"
        raise UserError(what, "Name either CLIPS or --watch FOLDER. Try: vidfuse predict --help")
    if folders:
        place = Path(folders[0]).expanduser()
        if not place.is_dir():
            raise UserError(f"{place}: no such folder", "Make it first, or check --watch.")
        return watch(place)
    if "-" not in inputs:
        return expand_inputs(inputs)
    return as_it_comes(expand_inputs(inputs, _standard_input()))


def _standard_input() -> TextIO | None:
    """Standard input, whatever the names on it are; None where the program has none.

    Not ``sys.stdin``: a thread that waits for the next line would hold its lock when Python ends.
    """
    if sys.stdin is None:
        return None
    raw = io.FileIO(sys.stdin.fileno(), closefd=False)
    return io.TextIOWrapper(raw, encoding=sys.stdin.encoding, errors="surrogateescape")
