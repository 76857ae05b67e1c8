"""``vidfuse train``."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import DatasetArgument, with_settings
from vidfuse.cli.output import FormatOption, print_json
from vidfuse.training.config import TrainConfig

app = new_app()
# Field of the settings → the group in `--help` that begins with it.
PANELS = {
    "backbone": "Features",
    "decoder": "Machine",
    "head": "Head",
    "layout": "Data and run folder",
    "epochs": "Training",
}


@app.command(cls=Command)
@with_settings(TrainConfig, PANELS)
def train(
    dataset: DatasetArgument,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file with the names of these options; the command line wins over it, and "
            "it wins over environment variables VIDFUSE_<OPTION>.",
        ),
    ] = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """Train an action classifier: extract missing features, fit a head, save one file.

    Prints the model's path. The run folder also holds the metrics of every epoch and the
    configuration.
    """
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.timing import Timings

    progress = ConsoleProgress()
    summary = api.train(dataset, progress=progress, timings=Timings(BEGAN), **settings)
    if format == "json":
        print_json(summary)
        return
    progress.info(
        f"{summary['clips']} clips ({summary['reused']} from the cache, {summary['failed']} "
        f"failed); best epoch {summary['best_epoch']} of {summary['epochs']}"
    )
    validation = summary["validation"]
    if validation:
        progress.info(
            f"Validation, which chose the epoch: accuracy {validation['accuracy']:.3f}, "
            f"macro F1 {validation['macro_f1']:.3f} ({validation['clips']} clips)"
        )
    measure = ["vidfuse", "evaluate", dataset]
    if "out" in settings:  # elsewhere than in runs/, where the latest is found by itself
        measure += ["--model", summary["run"]]
    if summary["split"]["test"]:
        progress.info(f"Measure it on clips it has not seen: {shlex.join(measure)}")
    print(summary["model"])
