"""``vidfuse inspect``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import (
    CacheOption,
    DatasetArgument,
    DecoderOption,
    LayoutOption,
    MemoryOption,
    SplitOption,
    TimeLimitOption,
    WorkersOption,
)
from vidfuse.cli.output import FormatOption, human_size, print_json, print_text, table
from vidfuse.text import printable

app = new_app()
HELP = """\
Look at a dataset: layout, classes, groups, splits, lengths, unreadable files.

Exits with 1 where clips cannot be read.
"""
SHOWN = 20  # classes, problems and files listed in the text form


@app.command(cls=Command, help=HELP)
def inspect(
    dataset: DatasetArgument,
    layout: LayoutOption = None,
    split: SplitOption = None,
    read: Annotated[
        bool,
        typer.Option("--read/--no-read", help="Decode every clip, to find unreadable ones."),
    ] = True,
    decoder: DecoderOption = "auto",
    workers: WorkersOption = None,
    time_limit: TimeLimitOption = None,
    memory: MemoryOption = None,
    cache: CacheOption = None,
    format: FormatOption = "text",
) -> None:
    """The command ``vidfuse inspect``."""
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress

    report = api.inspect(
        dataset,
        layout=layout,
        split=split,
        read=read,
        decoder=decoder,
        workers=workers,
        time_limit=time_limit,
        memory=memory,
        cache=cache,
        progress=ConsoleProgress(),
    )
    if format == "json":
        print_json(report)
    else:
        print_text(_text(report))
    if report.get("unreadable"):
        raise typer.Exit(1)


def _text(report: dict[str, Any]) -> str:
    splits = ", ".join(f"{part} {count}" for part, count in report["splits"].items())
    lines = [
        f"{printable(report['name'])}: {report['clips']} clips, {len(report['classes'])} classes",
        f"layout   {report['layout']}",
        f"groups   {report['groups'] or 'none known: a split can only be random'}",
        f"splits   {splits + ' (' + report['split_source'] + ')' if splits else 'none declared'}",
    ]
    if report["unlabelled"]:
        lines.append(f"without a label  {report['unlabelled']}")
    if report.get("seconds"):
        lines += [
            f"seconds  {_span(report['seconds'], '.1f')}",
            f"frames   {_span(report['frames'], '.0f')}",
            "sizes    " + ", ".join(f"{size} ({n})" for size, n in report["sizes"].items()),
        ]
    lines.append("features of 16 frames, in the cache:")
    for name, grids in report["feature_bytes"].items():
        sizes = ", ".join(f"grid {grid} {human_size(size)}" for grid, size in grids.items())
        lines.append(f"  {name}: {sizes}")
    classes = [(label, str(count)) for label, count in report["classes"].items()]
    lines += ["", table(("class", "clips"), classes[:SHOWN]), *_more(classes)]
    for title, found in (
        ("Problems", report["problems"]),
        ("On both sides of the split", report.get("duplicates", [])),
        ("Unreadable", [f"{f['path']}: {f['error']}" for f in report.get("unreadable", [])]),
    ):
        if found:
            shown = [f"  {printable(line)}" for line in found[:SHOWN]]
            lines += ["", f"{title}:", *shown, *_more(found)]
    return "\n".join(lines)


def _span(values: dict[str, float], form: str) -> str:
    least, median, most = (format(values[name], form) for name in ("least", "median", "most"))
    return f"{least} to {most}, median {median}"


def _more(items: list[Any]) -> list[str]:
    return [f"  … and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
