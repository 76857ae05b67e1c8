"""``vidfuse evaluate``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, print_text, table
from vidfuse.cli.options import (
    DatasetArgument,
    FormatOption,
    LayoutOption,
    ModelOption,
    chosen_models,
    with_settings,
)
from vidfuse.inference.config import InferenceConfig
from vidfuse.results import Evaluation

app = typer.Typer(**PLAIN)
HELP = "Measure a trained model on clips that it has not seen."
LARGEST_MATRIX = 12  # classes whose confusion matrix still fits a terminal
WIDEST_COLUMN = 10  # of the matrix


@app.command(cls=Command, help=HELP)
@with_settings(InferenceConfig)
def evaluate(
    dataset: DatasetArgument,
    model: ModelOption = None,
    subset: Annotated[
        Literal["auto", "all", "train", "val", "test"],
        typer.Option(
            "--subset",
            help="Which clips. auto: the dataset's test part; where it declares none, the clips "
            "that the model has not seen.",
        ),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="N",
            help="Number of the official split.",
            show_default="the one that the model was trained on",
        ),
    ] = None,
    layout: LayoutOption = None,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse evaluate``."""
    from vidfuse import api

    metrics = api.evaluate(
        dataset,
        model=chosen_models(model),
        subset=subset,
        split=split,
        layout=layout,
        reporter=ConsoleReporter(BEGAN),
        **settings,
    )
    if format == "json":
        print_json(metrics.to_dict())
    else:
        print_text(_text(metrics))
    if metrics.failed:
        raise typer.Exit(1)


def _text(metrics: Evaluation) -> str:
    interval = metrics.accuracy_interval
    spread = f"  95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    supports = [each.support for each in metrics.per_class]
    lines = [
        f"accuracy         {metrics.accuracy:.3f}{spread}",
        f"macro F1         {metrics.macro_f1:.3f}",
        f"macro precision  {metrics.macro_precision:.3f}",
        f"macro recall     {metrics.macro_recall:.3f}",
    ]
    if metrics.top5_accuracy is not None:
        lines.append(f"top-5 accuracy   {metrics.top5_accuracy:.3f}")
    lines += [
        f"clips            {metrics.clips}, {metrics.failed} failed",
        f"for comparison   {max(supports) / sum(supports):.3f}, always the most frequent class",
        f"interval         {metrics.interval_method}",
    ]
    if frames := metrics.frames:
        lines.append(
            f"frames           {frames.glimpses:.1f} of {frames.candidates} observed, on average"
        )
    rows = [
        (
            each.label,
            *(f"{value:.3f}" for value in (each.precision, each.recall, each.f1)),
            str(each.support),
        )
        for each in metrics.per_class
    ]
    lines += ["", table(("class", "precision", "recall", "F1", "clips"), rows)]
    if len(metrics.classes) <= LARGEST_MATRIX:
        header = ("true \\ predicted", *_shortened(metrics.classes))
        body = [
            (label, *(str(count) for count in row))
            for label, row in zip(metrics.classes, metrics.confusion_matrix, strict=True)
        ]
        lines += ["", table(header, body)]
    return "\n".join(lines)


def _shortened(classes: list[str]) -> list[str]:
    """Class names that fit above a column, if they still differ then."""
    wide = WIDEST_COLUMN
    short = [name if len(name) <= wide else name[: wide - 1] + "…" for name in classes]
    return short if len(set(short)) == len(set(classes)) else classes
