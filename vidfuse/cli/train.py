"""``vidfuse train``."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import ConfigOption, with_settings
from vidfuse.cli.output import FormatOption, print_json, table
from vidfuse.progress import Progress
from vidfuse.training.config import TrainConfig
from vidfuse.training.runs import latest_run

app = new_app()
HELP = """\
Train an action classifier: extract missing features, fit a head, save one file.

Prints the model's path. The run folder also holds the metrics of every epoch and the
configuration.
"""
# Field of the settings → the group in `--help` that begins with it.
PANELS = {
    "backbone": "Features",
    "decoder": "Machine",
    "head": "Head",
    "layout": "Data and run folder",
    "epochs": "Training",
}


@app.command(cls=Command, help=HELP)
@with_settings(TrainConfig, PANELS)
def train(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET", help="A dataset's folder, or a manifest.", show_default=False
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            help="Cross-validate: every clip is tested once, by group; then fit one model on all.",
            show_default="one split",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that was killed or interrupted, instead of DATASET.",
        ),
    ] = None,
    config: ConfigOption = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse train``."""
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.timing import Timings

    progress = ConsoleProgress()
    summary = api.train(
        dataset,
        folds=folds,
        resume=resume,
        progress=progress,
        timings=Timings(BEGAN),
        **settings,
    )
    if format == "json":
        print_json(summary)
    elif folds is not None:
        _tell_folds(summary, progress)
    else:
        _tell(summary, progress)


def _tell_folds(summary: dict[str, Any], progress: Progress) -> None:
    """The result of a cross-validation."""
    rows = [("head", "accuracy", "95 % interval", "macro F1")]
    for name, each in ((summary["head"], summary), *summary["baselines"].items()):
        interval = each["accuracy_interval"]
        spread = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        rows.append((name, f"{each['accuracy']:.3f}", spread, f"{each['macro_f1']:.3f}"))
    progress.info(f"Every clip was tested once; intervals: {summary['interval_method']}")
    progress.info(table(rows[0], rows[1:]))
    progress.info(f"The model is fitted on all {summary['clips']} clips.")
    print(summary["model"])


def _tell(summary: dict[str, Any], progress: Progress) -> None:
    """The result of one run."""
    views = summary["computed"] + summary["reused"] + summary["failed"]
    what = "clips" if views == summary["clips"] else f"clips in {views} views"
    progress.info(
        f"{summary['clips']} {what} ({summary['reused']} from the cache, {summary['failed']} "
        f"failed); best epoch {summary['best_epoch']} of {summary['epochs']}"
    )
    validation = summary["validation"]
    if validation:
        progress.info(
            f"Validation, which chose the epoch: accuracy {validation['accuracy']:.3f}, "
            f"macro F1 {validation['macro_f1']:.3f} ({validation['clips']} clips)"
        )
    measure = ["vidfuse", "evaluate", summary["dataset"]]
    if summary["run"] != str(latest_run()):  # which is found by itself
        measure += ["--model", summary["run"]]
    if summary["split"]["test"]:
        progress.info(f"Measure it on clips it has not seen: {shlex.join(measure)}")
    print(summary["model"])
