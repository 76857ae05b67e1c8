"""``vidfuse compare``."""

from __future__ import annotations

import sys
from textwrap import fill
from typing import Annotated, Any, Literal

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import ConfigOption, DatasetArgument, with_settings
from vidfuse.cli.output import human_count, print_json, print_text, table
from vidfuse.evaluation.compare.config import CompareConfig

app = new_app()
HELP = """\
Compare fusion heads by cross-validation, and say which to take.

Every head gets the same clips, folds, epochs and search. The folder of results also holds
pictures, and the finished fits: the same command goes on after an interruption. Exits with 1
where some head failed.
"""
PANELS = {
    "backbone": "Features",
    "decoder": "Machine",
    "heads": "Comparison",
    "epochs": "Training, the same for every head",
}
ORDERS = ("accuracy", "shuffled", "tested_shuffled", "reversed", "shuffled_p_value")


@app.command(cls=Command, help=HELP)
@with_settings(CompareConfig, PANELS)
def compare(
    dataset: DatasetArgument,
    config: ConfigOption = None,
    format: Annotated[
        Literal["text", "json", "csv"],
        typer.Option("--format", help="Form of the result on stdout."),
    ] = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse compare``."""
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.timing import Timings

    summary = api.compare(dataset, progress=ConsoleProgress(), timings=Timings(BEGAN), **settings)
    if format == "json":
        print_json(summary)
    elif format == "csv":
        from vidfuse.evaluation.compare.results import write_csv

        write_csv(sys.stdout, summary)
    else:
        print_text(_text(summary))
    if summary["failed_heads"]:
        raise typer.Exit(1)


def _text(summary: dict[str, Any]) -> str:
    heads = summary["heads"]
    scores = [
        (row["name"], *_scores(row), _signed(row["difference"]), _number(row["p_value"], 3))
        for row in heads
    ]
    scores += [(name, *_scores(row), "", "") for name, row in summary["baselines"].items()]
    orders = [(row["name"], *(_number(row[kind], 3) for kind in ORDERS)) for row in heads]
    costs = [
        (
            row["name"],
            str(row["grid"]),
            human_count(row["parameters"]),
            human_count(row["multiply_adds"]),
            f"{row['latency_ms']:.2f}",
            f"{row['latency_batched_ms']:.3f}",
            f"{row['training_seconds']:.1f}",
        )
        for row in heads
    ]
    return "\n\n".join(
        [
            table(("head", "accuracy", "95 % interval", "macro F1", "to mean", "p"), scores),
            *(
                fill(_frames(row, summary["protocol"]["settings"]["frames"]), 96)
                for row in heads
                if row["frame_budget"]
            ),
            "Is order used? Accuracy on frames in order, shuffled in training and test, shuffled\n"
            "in the test only, and backwards in the test only:",
            table(("head", "in order", "shuffled", "test only", "backwards", "p"), orders),
            "Cost of the head for one clip; training is one fit:",
            table(
                ("head", "grid", "params", "mult-adds", "ms alone", "ms batched", "train s"), costs
            ),
            fill(summary["advice"], 96),
        ]
    )


def _frames(row: dict[str, Any], candidates: int) -> str:
    """What a head that chooses its frames takes, and what its rivals do with as many."""
    own = row["frame_budget"]["own"]
    return (
        f"{row['name']} looks at {own['frames']:.1f} of {candidates} frames, accuracy "
        f"{own['policy']:.3f}. With the same weights and as many frames: uniform "
        f"{own['uniform']:.3f}, random {own['random']:.3f}, early exit {own['early_exit']:.3f}."
    )


def _scores(row: dict[str, Any]) -> tuple[str, str, str]:
    low, high = row["accuracy_interval"] or (None, None)
    spread = "" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{row['accuracy']:.3f}", spread, f"{row['macro_f1']:.3f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
