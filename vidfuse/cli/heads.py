"""``vidfuse heads``."""

from __future__ import annotations

from textwrap import wrap
from typing import Annotated

import typer

from vidfuse.backbones import DEFAULT_CHANNELS
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import human_count, print_json, print_text, table
from vidfuse.cli.options import FormatOption
from vidfuse.results import HeadDescription, Latency

app = typer.Typer(**PLAIN)
HELP = """\
List the heads: what each reads, whether it knows order, what it needs and costs.

Parameters and multiply-adds are counted for the default options and one clip. For a head that
is named, its options are shown too; give them to train as --head-option NAME=VALUE.
"""
WIDTH = 100  # columns of the text form


@app.command(cls=Command, help=HELP)
def heads(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HEAD]", help="Heads to show with their options; none lists all."),
    ] = None,
    channels: Annotated[
        int, typer.Option(min=1, help="Channels of the features whose cost is counted.")
    ] = DEFAULT_CHANNELS,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 16,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 10,
    latency: Annotated[
        bool, typer.Option("--latency", help="Also measure the time per clip on this CPU.")
    ] = False,
    format: FormatOption = "text",
) -> None:
    """The command ``vidfuse heads``."""
    from vidfuse import api

    found = api.list_heads(
        names, channels=channels, frames=frames, classes=classes, latency=latency
    )
    if format == "json":
        print_json(
            {
                "channels": channels,
                "frames": frames,
                "classes": classes,
                "heads": [head.to_dict() for head in found],
            }
        )
        return
    print_text(_overview(found, timed=latency))
    for head in found:
        if head.problem:
            print_text(f"\n{head.name}: {head.problem}")
    if names:
        for head in found:
            print_text(f"\n{_details(head)}")


def _overview(found: list[HeadDescription], *, timed: bool) -> str:
    header = ("head", "input", "order", "direction", "parameters", "multiply-adds")
    rows = [
        (
            head.name,
            head.input or "",
            _yes(head.order_aware),
            _yes(head.reversal_aware),
            _count(head.parameters),
            _count(head.multiply_adds),
            *(_times(head.latency_ms) if timed else ()),
            head.extra or "",
        )
        for head in found
    ]
    return table((*header, *(("ms alone", "ms batched") if timed else ()), "extra"), rows)


def _details(head: HeadDescription) -> str:
    lines = [f"{head.name}: {head.summary}"]
    if head.paper:
        lines += wrap(head.paper, WIDTH, initial_indent="  ", subsequent_indent="  ")
    for option in head.options or ():
        choices = f" ({', '.join(map(str, option.choices))})" if option.choices else ""
        default = option.default
        default = str(default).lower() if isinstance(default, bool) else default
        lines.append(f"  {option.name}={default}{choices}")
        indent = " " * 6
        lines += wrap(option.help, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _yes(known: bool | None) -> str:
    return "" if known is None else "yes" if known else "no"


def _count(number: int | None) -> str:
    return "" if number is None else human_count(number)


def _times(latency: Latency | None) -> tuple[str, str]:
    if latency is None:
        return "", ""
    return f"{latency.alone:.2f}", f"{latency.batched:.2f}"
