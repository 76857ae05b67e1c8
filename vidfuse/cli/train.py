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
from vidfuse.results import Baseline, Choice, FoldsResult, TrainResult
from vidfuse.runs import latest_run
from vidfuse.training.config import AUTO, DENSE, WINDOWED, TrainConfig

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
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TEXT",
            help="Time in which --head auto chooses, such as 20m or 1h30m.",
            show_default="as long as it takes",
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
    from vidfuse.start import run_training

    reporter = ConsoleReporter(BEGAN)
    result = run_training(
        dataset, settings, folds=folds, budget=budget, resumed=resume, reporter=reporter
    )
    if format == "json":
        print_json(result.to_dict())
    elif isinstance(result, FoldsResult):
        _print_folds(result, reporter)
    else:
        _print_result(result, settings.get("timeline"), reporter)


def _print_folds(result: FoldsResult, reporter: Reporter) -> None:
    """The result of a cross-validation."""
    rows = [("head", "accuracy", "95 % interval", "macro F1")]
    name = AUTO if result.choices else result.head  # each fold has one of its own
    scored: list[tuple[str, FoldsResult | Baseline]] = [(name, result)]
    for name, each in [*scored, *result.baselines.items()]:
        interval = each.accuracy_interval
        spread = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        rows.append((name, f"{each.accuracy:.3f}", spread, f"{each.macro_f1:.3f}"))
    choices = result.choices or []
    for number, choice in enumerate(choices, start=1):
        what = f"Fold {number}" if number < len(choices) else "All clips"
        reporter.info(f"{what}: {choice.head} on grid {choice.grid} of {choice.backbone}")
    read = f" that could be read ({result.failed} could not)" if result.failed else ""
    reporter.info(f"Every clip{read} was tested once; intervals: {result.interval_method}")
    reporter.info(table(rows[0], rows[1:]))
    reporter.info(f"The model is fitted on all {result.clips} clips.")
    print(result.model)


def _print_result(result: TrainResult, timeline: str | None, reporter: Reporter) -> None:
    """The result of one run."""
    if result.choice is not None:
        reporter.info(_tried(result.choice))
    views = result.computed + result.reused + result.failed
    parts = {None: "clips", WINDOWED: "windows", DENSE: "sequences"}[timeline]
    what = parts if views == result.clips else f"clips in {views} views"
    if timeline:
        what = f"{parts} in {views} stretches of video"
    reporter.info(
        f"{result.clips} {what} ({result.reused} from the cache, {result.failed} "
        f"failed); best epoch {result.best_epoch} of {result.epochs}"
    )
    validation = result.validation
    if validation:
        reporter.info(
            f"Validation, which chose the epoch: accuracy {validation.accuracy:.3f}, "
            f"macro F1 {validation.macro_f1:.3f} ({validation.clips} {parts})"
        )
    if result.refitted:
        reporter.info(
            f"The model then learned anew from training and validation {parts} together, for "
            f"{result.best_epoch} epoch{'s' * (result.best_epoch > 1)}"
        )
    test = result.test
    if test is not None:
        interval = test.accuracy_interval
        spread = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
        reporter.info(
            f"Test, which nothing was chosen by: accuracy {test.accuracy:.3f}{spread}, "
            f"macro F1 {test.macro_f1:.3f} ({test.clips} {parts})"
        )
    measure = ["vidfuse", "evaluate", result.dataset, *["--timeline"] * bool(timeline)]
    if result.run != str(latest_run()):  # which is found by itself
        measure += ["--model", result.run]
    if result.split["test"] and test is None:
        reporter.info(f"Measure it on clips it has not seen: {shlex.join(measure)}")
    print(result.model)


def _tried(choice: Choice) -> str:
    """The candidates of ``--head auto``, the chosen one first."""
    rows = []
    tried = [each for each in choice.tried if each.folds or each.error]
    for each in tried:
        low, high = each.accuracy_interval or (None, None)
        rows.append(
            (
                each.head,
                each.backbone,
                str(each.grid),
                "" if each.accuracy is None else f"{each.accuracy:.3f}",
                "" if low is None else f"{low:.3f} to {high:.3f}",
                f"{each.folds} of {choice.folds}",
                f"{each.seconds:.0f}",
                each.outcome,
            )
        )
    header = ("head", "encoder", "grid", "accuracy", "95 % interval", "folds", "s", "")
    rest = len(choice.tried) - len(tried)
    if not tried:
        return f"There was no time for any of the {rest} candidates."
    return table(header, rows) + f"\nThere was no time for {rest} more." * bool(rest)
