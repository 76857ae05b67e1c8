"""``vidfuse train``."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, table
from vidfuse.cli.options import ConfigOption, FormatOption, with_settings
from vidfuse.progress import Reporter
from vidfuse.results import Baseline, FoldsResult, TrainResult
from vidfuse.runs import latest_run
from vidfuse.training.config import TrainConfig

app = typer.Typer(**PLAIN)
HELP = """\
Train an action classifier: extract missing features, fit a head, save one file.

Prints the model's path. The run folder also holds the metrics of every epoch and the
configuration.
"""
# Field of the settings → the group in `--help` that begins with it.
PANELS = {
    "backbone": "Features",
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
    config: ConfigOption = None,  # noqa: ARG001 - `with_settings` reads it
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse train``."""
    from vidfuse.training.start import run_training

    reporter = ConsoleReporter(BEGAN)
    result = run_training(dataset, settings, folds=folds, resumed=resume, reporter=reporter)
    if format == "json":
        print_json(result.to_dict())
    elif isinstance(result, FoldsResult):
        _print_folds(result, reporter)
    else:
        _print_result(result, reporter)


def _print_folds(result: FoldsResult, reporter: Reporter) -> None:
    """The result of a cross-validation."""
    rows = [("head", "accuracy", "95 % interval", "macro F1")]
    scored: list[tuple[str, FoldsResult | Baseline]] = [(result.head, result)]
    for name, each in [*scored, *result.baselines.items()]:
        interval = each.accuracy_interval
        spread = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        rows.append((name, f"{each.accuracy:.3f}", spread, f"{each.macro_f1:.3f}"))
    read = f" that could be read ({result.failed} could not)" if result.failed else ""
    reporter.info(f"Every clip{read} was tested once; intervals: {result.interval_method}")
    reporter.info(table(rows[0], rows[1:]))
    reporter.info(f"The model is fitted on all {result.clips} clips.")
    print(result.model)


def _print_result(result: TrainResult, reporter: Reporter) -> None:
    """The result of one run."""
    views = result.computed + result.reused + result.failed
    what = "clips" if views == result.clips else f"clips in {views} views"
    reporter.info(
        f"{result.clips} {what} ({result.reused} from the cache, {result.failed} "
        f"failed); best epoch {result.best_epoch} of {result.epochs}"
    )
    validation = result.validation
    if validation:
        reporter.info(
            f"Validation, which chose the epoch: accuracy {validation.accuracy:.3f}, "
            f"macro F1 {validation.macro_f1:.3f} ({validation.clips} clips)"
        )
    measure = ["vidfuse", "evaluate", result.dataset]
    if result.run != str(latest_run()):  # which is found by itself
        measure += ["--model", result.run]
    if result.split["test"]:
        reporter.info(f"Measure it on clips it has not seen: {shlex.join(measure)}")
    print(result.model)
