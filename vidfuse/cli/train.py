"""``vidfuse train``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.options import with_settings
from vidfuse.cli.output import FormatOption, print_json
from vidfuse.training.config import TrainConfig

app = typer.Typer(rich_markup_mode="rich", add_completion=False)
PANELS = {"backbone": "Features", "decoder": "Machine", "head": "Head", "layout": "Data",
          "epochs": "Training"}  # fmt: skip


@app.command()
@with_settings(TrainConfig, PANELS)
def train(
    dataset: Annotated[str, typer.Argument(help="A dataset's folder, or a manifest.")],
    config: Annotated[
        str | None,
        typer.Option("--config", help="TOML file with the same names; the command line wins."),
    ] = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """Train an action classifier: extract features that are missing, fit a head, save one file.

    Prints the model's path. The run folder also holds the metrics of every epoch and the resolved
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
    validation = summary["validation"]
    progress.info(
        f"{summary['clips']} clips ({summary['reused']} from the cache, {summary['failed']} "
        f"failed); best epoch {summary['best_epoch']} of {summary['epochs']}"
    )
    if validation:
        progress.info(
            f"Validation, which chose the epoch: accuracy {validation['accuracy']:.3f}, "
            f"macro-F1 {validation['macro_f1']:.3f} ({validation['clips']} clips). "
            f"Measure it with: vidfuse evaluate {dataset}"
        )
    print(summary["model"])
