"""``vidfuse bench``."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, print_text, table
from vidfuse.cli.extract import source
from vidfuse.cli.options import ClipsArgument, FormatOption, LayoutOption, with_settings
from vidfuse.features.spec import FeatureConfig
from vidfuse.results import BenchResult

app = typer.Typer(**PLAIN)
USED = [each.name for each in fields(FeatureConfig) if each.name not in ("cache", "max_failed")]
HELP = """\
Measure how fast this machine extracts features of these clips, and what limits it.

Decoding alone, the network alone, and both as in an extraction, in turns; the cache is neither
read nor written. Run it while nothing else runs.
"""


@app.command(cls=Command, help=HELP)
@with_settings(FeatureConfig, {"backbone": "Features"}, only=USED)
def bench(
    inputs: ClipsArgument,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", help="Rounds of measurement.", min=1)
    ] = 3,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="Length of a round's extraction.", min=0)
    ] = 5.0,
    layout: LayoutOption = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse bench``."""
    from vidfuse import api

    report = api.bench(
        source(inputs, layout),
        repeats=repeats,
        seconds=seconds,
        layout=layout,
        reporter=ConsoleReporter(BEGAN),
        **settings,
    )
    if format == "json":
        print_json(report.to_dict())
    else:
        print_text(_text(report))
    if report.failed:
        raise typer.Exit(1)


def _text(report: BenchResult) -> str:
    names = {
        "decoding alone": "decode_only",
        "network alone": "forward_only",
        "limit of both": "limit",
        "extraction": "pipeline",
    }
    rows = [(name, f"{getattr(report, key):.2f}") for name, key in names.items()]
    return "\n".join(
        [
            table(("", "clips/s"), rows),
            "",
            f"extraction reaches {report.fraction_of_limit:.0%} of the limit, "
            f"the network in fp32 {report.gemm_fraction:.0%} of a large matrix product",
            f"{report.decode_processes} decode processes and {report.streams} streams of "
            f"forward passes on {report.processor}",
            f"precision {report.precision}: {report.reason}",
        ]
    )
