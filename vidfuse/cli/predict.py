"""``vidfuse predict``."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, write_records
from vidfuse.cli.options import ModelOption, chosen_models, with_settings
from vidfuse.cli.timelines import Files, predict_timelines
from vidfuse.data.timelines import FORMATS
from vidfuse.errors import InputError, UserError
from vidfuse.inference.config import TIMELINE_FIELDS, TimelineConfig
from vidfuse.results import Record, TimelineRecord

app = typer.Typer(**PLAIN)
TOP = 5  # classes listed, where nobody says how many
HELP = """\
Predict the class of clips: one record per input, in order.

In text form a record is a line with path, class and score, separated by tabs; of an input that
could not be read, class and score are empty, and a fourth column says why. Exits with 1 then; the
others are predicted all the same. With - and with --watch the model stays loaded, and each clip is
answered as soon as it is there.

--timeline says what happens when in videos of any length: the model slides over them, and a record
has segments. In text form each segment is a line with path, start, end, class and score.

--live says what happens now in a stream, until Ctrl-C or the end of the pipe. In text form each
decision is a line with source, seconds since the first frame, class, score, and delay: seconds from
the arrival of the newest frame to the decision.
"""


@app.command(cls=Command, help=HELP)
@with_settings(TimelineConfig, {"window": "Timelines"})
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
    timeline: Annotated[
        bool,
        typer.Option("--timeline", help="Say what happens when, instead of one class for all."),
    ] = False,
    live: Annotated[
        str | None,
        typer.Option(
            "--live",
            metavar="SOURCE",
            help="Predict a stream as it comes: rtsp://…, http://…, udp://…, a camera such as "
            "/dev/video0, or pipe: for bytes on standard input.",
            rich_help_panel="Live",
        ),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience",
            metavar="SECONDS",
            help="Give a stream up when no frame came for so long.",
            show_default="30",
            min=0.1,
            rich_help_panel="Live",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Also write the timelines here, for an annotation tool: a file, or a folder (no "
            "suffix, or a slash at the end) that gets one for each video.",
            rich_help_panel="Timelines",
        ),
    ] = None,
    out_format: Annotated[
        str | None,
        typer.Option(
            "--out-format",
            metavar="NAME",
            help="Format of --out: " + ", ".join(FORMATS) + ".  [default: by its suffix]",
            rich_help_panel="Timelines",
        ),
    ] = None,
    annotate: Annotated[
        str | None,
        typer.Option(
            "--annotate",
            metavar="PATH",
            help="Also draw the timelines into copies of the videos: an .mp4, or a folder.",
            rich_help_panel="Timelines",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files of --out and --annotate that are there already.",
            rich_help_panel="Timelines",
        ),
    ] = False,
    model: ModelOption = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", help="Classes listed per record.", show_default="5", min=1
        ),
    ] = None,
    format: Annotated[
        Literal["text", "json", "jsonl", "csv"],
        typer.Option("--format", help="Form of the records on stdout."),
    ] = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse predict``."""
    from vidfuse.inference.predict import predict_records
    from vidfuse.inference.predictor import Ensemble, find_model

    reporter = ConsoleReporter(BEGAN)
    count = top or TOP
    if live is not None or patience is not None:
        from vidfuse.cli.live import predict_live

        others = {"CLIPS": inputs, "--watch": watch, "--timeline": timeline, "--out": out}
        others |= {"--out-format": out_format, "--annotate": annotate}
        others |= {"--overwrite": overwrite, "--format json": format == "json"}
        predict_live(
            live, others, chosen_models(model), settings, count, patience, format, reporter
        )
        return
    clips = _clips(inputs or [], watch or [])
    config = TimelineConfig.from_mapping(settings)
    named: Sequence[str | None] = chosen_models(model) or [None]
    models = [find_model(each, reporter) for each in named]
    records: Iterator[Record | TimelineRecord]
    files = Files(out, out_format, annotate, overwrite)
    if timeline:
        listed = not watch and "-" not in (inputs or [])
        records = predict_timelines(models, clips, config, files, top, reporter, listed=listed)
    else:
        given = {"out": out, "out_format": out_format, "annotate": annotate, **settings}
        given["overwrite"] = overwrite
        for name in filter(given.get, TIMELINE_FIELDS):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} is for timelines", "Add --timeline, or leave it out.")
        records = predict_records(Ensemble(models, config, reporter), clips, count)
    kept = []
    failed = False
    try:
        if watch:
            reporter.info(f"Watching {watch[0]}; Ctrl-C ends it")
        for record in write_records(records, format):
            if format == "json":
                kept.append(record.to_dict())
            if not record.ok:
                failed = True
                reporter.warn_once(f"{record.path}: {record.error}")
            for warning in record.warnings:
                reporter.warn(f"{record.path}: {warning}")
    except KeyboardInterrupt:
        if not watch:
            raise
    if format == "json":
        print_json({"records": kept, "timings": reporter.timings()})
    raise typer.Exit(int(failed or files.incomplete))


def _clips(inputs: list[str], folders: list[str]) -> Iterator[Path | InputError | None]:
    """The inputs to predict, with None where the next clip is not there yet.

    Raises:
        UserError: There is nothing to predict, or no folder to watch.
    """
    from vidfuse.data.files import expand_inputs
    from vidfuse.data.watch import as_it_comes, watch

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
