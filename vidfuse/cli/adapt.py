"""``vidfuse adapt``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidfuse.adaptation.config import AdaptConfig
from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, print_text
from vidfuse.cli.extract import source
from vidfuse.cli.options import ClipsArgument, FormatOption, LayoutOption, with_settings
from vidfuse.results import AdaptResult

app = typer.Typer(**PLAIN)
HELP = """\
Adapt a bundled encoder to your videos, which need no labels.

It goes on learning from a larger encoder, its teacher, on random crops of frames of these clips.
Some clips are held out; agreement with the teacher on them is printed, before and after, and where
it did not rise nothing is written. Clips of a dataset's own test part are left out; keep others
that you want to test on out of CLIPS.

Exits with 1 where more clips failed than --max-failed allows, or where nothing was written because
the encoder became no better.
"""


@app.command(cls=Command, help=HELP)
@with_settings(AdaptConfig, {"backbone": "Adaptation"})
def adapt(
    inputs: ClipsArgument,
    out: Annotated[
        str,
        typer.Option(
            "--out", metavar="FILE", help="File of weights to write, ending in .safetensors."
        ),
    ],
    layout: LayoutOption = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse adapt``."""
    from vidfuse import api

    report = api.adapt(
        source(inputs, layout),
        out=out,
        layout=layout,
        reporter=ConsoleReporter(BEGAN),
        **settings,
    )
    if format == "json":
        print_json(report.to_dict())
    else:
        print_text(_text(report))
    allowed = settings.get("max_failed", AdaptConfig().max_failed)
    if report.failed > float(allowed) * (report.clips + report.held_out_clips + report.failed):
        raise typer.Exit(1)


def _text(report: AdaptResult) -> str:
    before, after = report.before, report.after
    return (
        f"{report.clips} clips, {report.crops} crops, {report.epochs:g} epochs; on "
        f"{report.held_out_clips} other clips, with {report.teacher}:\n"
        f"R² of its features {before.r2:.3f} before, {after.r2:.3f} after\n"
        f"neighbours in common {before.neighbours:.3f} before, {after.neighbours:.3f} after\n"
        f"{report.out}\n"
        f"Use it: vidfuse train DATASET --backbone {report.backbone} --weights {report.out}"
    )
