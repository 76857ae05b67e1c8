"""``vidfuse inspect``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, human_size, print_json, print_text, table
from vidfuse.cli.options import (
    DatasetArgument,
    FormatOption,
    LayoutOption,
    SplitOption,
    with_settings,
)
from vidfuse.features.spec import FeatureConfig
from vidfuse.results import Inspection, Range
from vidfuse.streams import printable

app = typer.Typer(**PLAIN)
HELP = """\
Look at a dataset: layout, classes, groups, splits, lengths, unreadable files.

Exits with 1 where clips cannot be read.
"""
DECODING = ("decoder", "workers", "time_limit", "memory", "cache")
SHOWN = 20  # classes, problems and files listed in the text form


@app.command(cls=Command, help=HELP)
@with_settings(FeatureConfig, only=DECODING)
def inspect(
    dataset: DatasetArgument,
    layout: LayoutOption = None,
    split: SplitOption = None,
    read: Annotated[
        bool,
        typer.Option("--read/--no-read", help="Decode every clip, to find unreadable ones."),
    ] = True,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse inspect``."""
    from vidfuse import api

    report = api.inspect(
        dataset,
        layout=layout,
        split=split,
        read=read,
        reporter=ConsoleReporter(),
        **settings,
    )
    if format == "json":
        print_json(report.to_dict())
    else:
        print_text(_text(report))
    if report.unreadable:
        raise typer.Exit(1)


def _text(report: Inspection) -> str:
    splits = ", ".join(f"{part} {count}" for part, count in report.splits.items())
    lines = [
        f"{printable(report.name)}: {report.clips} clips, {len(report.classes)} classes",
        f"layout   {report.layout}",
        f"groups   {report.groups or 'none known: a split can only be random'}",
        f"splits   {splits + f' ({report.split_source})' if splits else 'none declared'}",
    ]
    if report.unlabelled:
        lines.append(f"without a label  {report.unlabelled}")
    if report.seconds and report.frames:
        sizes = report.sizes or {}
        lines += [
            f"seconds  {_span(report.seconds, '.1f')}",
            f"frames   {_span(report.frames, '.0f')}",
            "sizes    " + ", ".join(f"{size} ({n})" for size, n in sizes.items()),
        ]
    for leak in report.leaks or []:
        lines.append(
            f"class from {leak.metadata} alone: {leak.accuracy:.1%} of clips "
            f"(most frequent class {leak.majority:.1%})"
        )
    lines.append("features of 16 frames, in the cache:")
    for name, grids in report.feature_bytes.items():
        listed = ", ".join(f"grid {grid} {human_size(size)}" for grid, size in grids.items())
        lines.append(f"  {name}: {listed}")
    classes = [(label, str(count)) for label, count in report.classes.items()]
    lines += ["", table(("class", "clips"), classes[:SHOWN]), *_more(classes)]
    for title, found in (
        ("Problems", report.problems),
        ("On both sides of the split", report.duplicates or []),
        ("Unreadable", [f"{each.path}: {each.error}" for each in report.unreadable or []]),
    ):
        if found:
            shown = [f"  {printable(line)}" for line in found[:SHOWN]]
            lines += ["", f"{title}:", *shown, *_more(found)]
    return "\n".join(lines)


def _span(values: Range, form: str) -> str:
    least, median, most = (format(v, form) for v in (values.least, values.median, values.most))
    return f"{least} to {most}, median {median}"


def _more(items: list[Any]) -> list[str]:
    return [f"  … and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
