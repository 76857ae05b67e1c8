"""``vidfuse bench``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.extract import source
from vidfuse.cli.options import LayoutOption, with_settings
from vidfuse.cli.output import FormatOption, print_json, print_text, table
from vidfuse.features.config import FeatureConfig

app = new_app()
HELP = """\
Measure how fast this machine extracts features of these clips, and what limits it.

Decoding alone, the network alone, and both as in an extraction, in turns; the cache is neither
read nor written. Run it while nothing else runs.
"""


@app.command(cls=Command, help=HELP)
@with_settings(
    FeatureConfig, {"backbone": "Features", "decoder": "Machine"}, without=("cache", "max_failed")
)
def bench(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS",
            help="A dataset, or videos, folders, globs, - for a list on standard input.",
        ),
    ],
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
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.timing import Timings

    report = api.bench(
        source(inputs, layout),
        repeats=repeats,
        seconds=seconds,
        layout=layout,
        progress=ConsoleProgress(),
        timings=Timings(BEGAN),
        **settings,
    )
    if format == "json":
        print_json(report)
    else:
        print_text(_text(report))
    if report["failed"]:
        raise typer.Exit(1)


def _text(report: dict[str, Any]) -> str:
    names = {
        "decoding alone": "decode_only",
        "network alone": "forward_only",
        "limit of both": "limit",
        "extraction": "pipeline",
    }
    rows = [(name, f"{report[key]:.2f}") for name, key in names.items()]
    return "\n".join(
        [
            table(("", "clips/s"), rows),
            "",
            f"extraction reaches {report['fraction_of_limit']:.0%} of the limit, "
            f"the network in fp32 {report['gemm_fraction']:.0%} of a large matrix product",
            f"{report['decode_processes']} decode processes and {report['streams']} streams of "
            f"forward passes on {report['processor']}",
            f"precision {report['precision']}: {report['reason']}",
        ]
    )
