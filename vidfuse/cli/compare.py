"""``vidfuse compare``."""

from __future__ import annotations

import sys
from textwrap import fill
from typing import Annotated, Any, Literal

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, human_count, print_json, print_text, table
from vidfuse.cli.options import ConfigOption, DatasetArgument, with_settings
from vidfuse.comparison.config import CompareConfig
from vidfuse.results import ComparedBaseline, ComparedHead, Comparison

app = typer.Typer(**PLAIN)
HELP = """\
Compare heads by cross-validation, and say which to take.

Every head gets the same clips, folds, epochs and search. The folder of results also holds
frames, and the finished fits: the same command goes on after an interruption. Exits with 1
where some head failed.
"""
PANELS = {
    "backbone": "Features",
    "heads": "Comparison",
    "epochs": "Training, the same for every head",
}
ORDERS = ("accuracy", "shuffled", "tested_shuffled", "reversed", "shuffled_p_value")


@app.command(cls=Command, help=HELP)
@with_settings(CompareConfig, PANELS)
def compare(
    dataset: DatasetArgument,
    config: ConfigOption = None,  # noqa: ARG001 - `with_settings` reads it
    format: Annotated[
        Literal["text", "json", "csv"],
        typer.Option("--format", help="Form of the result on stdout."),
    ] = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse compare``."""
    from vidfuse import api

    comparison = api.compare(dataset, reporter=ConsoleReporter(BEGAN), **settings)
    if format == "json":
        print_json(comparison.to_dict())
    elif format == "csv":
        from vidfuse.comparison.results import write_csv

        write_csv(sys.stdout, comparison.to_dict())
    else:
        several = comparison.backbones is not None
        print_text(_text_of_several(comparison) if several else _text(comparison))
    if comparison.failed_heads:
        raise typer.Exit(1)


def _text(comparison: Comparison) -> str:
    heads = comparison.heads
    scores = [
        (row.name, *_scores(row), _signed(row.difference), _number(row.p_value, 3)) for row in heads
    ]
    scores += [(name, *_scores(row), "", "") for name, row in comparison.baselines.items()]
    costs = [
        (
            row.name,
            str(row.grid),
            human_count(row.parameters),
            human_count(row.multiply_adds),
            f"{row.latency_ms:.2f}",
            f"{row.latency_batched_ms:.3f}",
            f"{row.training_seconds:.1f}",
        )
        for row in heads
    ]
    return "\n\n".join(
        [
            table(("head", "accuracy", "95 % interval", "macro F1", "to mean", "p"), scores),
            *(
                fill(_frames(row, comparison.protocol["settings"]["frames"]), 96)
                for row in heads
                if row.frame_budget
            ),
            *(_orders(heads) if comparison.protocol["settings"]["orders"] else ()),
            "Cost of the head for one clip; training is one fit and its refit:",
            table(
                ("head", "grid", "params", "mult-adds", "ms alone", "ms batched", "train s"), costs
            ),
            fill(comparison.advice, 96),
        ]
    )


def _orders(heads: list[ComparedHead]) -> tuple[str, str]:
    """Accuracy with frames in several orders, below a title."""
    rows = [(row.name, *(_number(getattr(row, kind), 3) for kind in ORDERS)) for row in heads]
    return (
        "Does the head use frame order? Accuracy with frames in order / shuffled in\n"
        "train+test / shuffled in test / reversed in test:",
        table(("head", "in order", "shuffled", "test only", "reversed", "p"), rows),
    )


def _text_of_several(comparison: Comparison) -> str:
    """The table encoder × head, and what to take."""
    heads = list(dict.fromkeys(row.name for row in comparison.heads))
    encoders = [each.name for each in comparison.backbones or []]
    row_of = {(row.name, row.backbone): row for row in comparison.heads}
    shown, behind = (
        [(head, *(form(row_of.get((head, encoder))) for encoder in encoders)) for head in heads]
        for form in (_cell, _behind)
    )
    shown += [
        (name, _cell(row), *[""] * (len(encoders) - 1))
        for name, row in comparison.baselines.items()
    ]
    behind_it = "Costs, and each encoder by itself"
    if comparison.protocol["settings"]["orders"]:
        behind_it = "Orders of frames, costs, and each encoder by itself"
    return "\n\n".join(
        [
            "Accuracy with its 95 % interval; * is the best. Baselines read no frame:",
            table(("head", *encoders), shown),
            "Difference to the best, paired over groups (p, uncorrected):",
            table(("head", *encoders), behind),
            fill(comparison.advice, 96),
            f"{behind_it}: {comparison.out}",
        ]
    )


def _cell(row: ComparedHead | ComparedBaseline | None) -> str:
    """Accuracy with its interval; nothing of a head that failed."""
    if row is None:
        return ""
    accuracy, spread, _ = _scores(row)
    best = isinstance(row, ComparedHead) and row.to_best is None
    return f"{accuracy}{f' ({spread})' * bool(spread)}{' *' if best else '  '}"


def _behind(row: ComparedHead | None) -> str:
    if row is None or row.to_best is None:
        return ""
    return f"{row.to_best:+.3f} ({row.to_best_p_value:.3f})"


def _frames(row: ComparedHead, candidates: int) -> str:
    """Frames that a frame-selecting head takes, and what its rivals do with as many."""
    own = (row.frame_budget or {})["own"]
    return (
        f"{row.name} observes {own['frames']:.1f} of {candidates} frames, accuracy "
        f"{own['policy']:.3f}. With the same weights and as many frames: uniform "
        f"{own['uniform']:.3f}, random {own['random']:.3f}, early exit {own['early_exit']:.3f}."
    )


def _scores(row: ComparedBaseline) -> tuple[str, str, str]:
    low, high = row.accuracy_interval or (None, None)
    spread = "" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{row.accuracy:.3f}", spread, f"{row.macro_f1:.3f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
