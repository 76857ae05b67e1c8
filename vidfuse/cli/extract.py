"""``vidfuse extract``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, print_text
from vidfuse.cli.options import ClipsArgument, FormatOption, LayoutOption, with_settings
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features.spec import FeatureConfig

app = typer.Typer(**PLAIN)
HELP = """\
Extract features of clips into the cache, so that training starts at once.

With --rate or --stride, of whole videos of any length, evenly sampled and in constant memory: what
training on timelines reads.

Exits with 1 where more clips failed than --max-failed allows.
"""


@app.command(cls=Command, help=HELP)
@with_settings(FeatureConfig, {"backbone": "Features"})
def extract(
    inputs: ClipsArgument,
    head: Annotated[
        str,
        typer.Option(
            "--head",
            metavar="NAMES",
            help="Heads to extract for, with commas between their names.",
        ),
    ] = "lstm",
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="X",
            help="Whole videos of any length, so many samples per second.",
            min=0.01,
            max=1000,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride", metavar="N", help="Whole videos, a sample for so many frames.", min=1
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Also write one .npy per clip, and index.csv, here."
        ),
    ] = None,
    layout: LayoutOption = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse extract``."""
    from vidfuse import api

    reporter = ConsoleReporter(BEGAN)
    heads = [name.strip() for name in head.split(",") if name.strip()]
    if not heads:
        raise UserError("--head names no head", "Example: --head lstm,mean")
    report = api.extract(
        source(inputs, layout),
        heads=heads,
        rate=rate,
        stride=stride,
        out=out,
        layout=layout,
        reporter=reporter,
        **settings,
    )
    if format == "json":
        print_json(report.to_dict())
    else:
        what = "videos, by stretches of them" if rate or stride else "clips"
        print_text(
            f"{report.clips} {what}: {report.computed} computed, {report.reused} reused, "
            f"{report.failed} failed\n{out or report.cache}"
        )
    allowed = settings.get("max_failed", FeatureConfig().max_failed)
    if report.failed > float(allowed) * report.clips:
        raise typer.Exit(1)


def source(inputs: list[str], layout: str | None) -> str | Iterable[Clip | InputError]:
    """A dataset where the one argument is one, else the clips that the arguments name."""
    from vidfuse.data.files import expand_inputs
    from vidfuse.data.layouts import recognised_layout

    if layout is not None and (len(inputs) > 1 or inputs[0] == "-"):
        raise UserError("--layout is for one dataset, and clips were given", "Leave it out.")
    only = Path(inputs[0]) if len(inputs) == 1 else None
    if only is not None and (layout is not None or recognised_layout(only) is not None):
        return inputs[0]
    if sys.stdin is not None:  # as where it was closed
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    found = expand_inputs(inputs, sys.stdin)
    return (item if isinstance(item, InputError) else Clip(item) for item in found)
