"""``vidfuse evaluate``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import (
    CacheOption,
    DatasetArgument,
    DeviceOption,
    LayoutOption,
    MemoryOption,
    ModelOption,
    PrecisionOption,
    TimeLimitOption,
    WorkersOption,
    chosen_models,
)
from vidfuse.cli.output import FormatOption, print_json, print_text, table

app = new_app()
HELP = "Measure a trained model on clips that it has not seen."
LARGEST_MATRIX = 12  # classes whose confusion matrix still fits a terminal
WIDEST_COLUMN = 10  # of the matrix


@app.command(cls=Command, help=HELP)
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
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    cache: CacheOption = None,
    workers: WorkersOption = None,
    time_limit: TimeLimitOption = None,
    memory: MemoryOption = None,
) -> None:
    """The command ``vidfuse evaluate``."""
    from vidfuse import api
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.timing import Timings

    metrics = api.evaluate(
        dataset,
        model=chosen_models(model),
        subset=subset,
        split=split,
        layout=layout,
        progress=ConsoleProgress(),
        timings=Timings(BEGAN),
        device=device,
        precision=precision,
        cache=cache,
        workers=workers,
        time_limit=time_limit,
        memory=memory,
    )
    if format == "json":
        print_json(metrics)
    else:
        print_text(_text(metrics))
    if metrics["failed"]:
        raise typer.Exit(1)


def _text(metrics: dict[str, Any]) -> str:
    interval = metrics["accuracy_interval"]
    spread = f"  95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    supports = [each["support"] for each in metrics["per_class"]]
    lines = [
        f"accuracy         {metrics['accuracy']:.3f}{spread}",
        f"macro F1         {metrics['macro_f1']:.3f}",
        f"macro precision  {metrics['macro_precision']:.3f}",
        f"macro recall     {metrics['macro_recall']:.3f}",
    ]
    if metrics["top5_accuracy"] is not None:
        lines.append(f"top-5 accuracy   {metrics['top5_accuracy']:.3f}")
    lines += [
        f"clips            {metrics['clips']}, {metrics['failed']} failed",
        f"for comparison   {max(supports) / sum(supports):.3f}, always the most frequent class",
        f"interval         {metrics['interval_method']}",
    ]
    if frames := metrics.get("frames"):
        lines.append(
            f"frames           {frames['looked_at']:.1f} of {frames['candidates']} looked at, on "
            "average"
        )
    rows = [
        (
            each["label"],
            *(f"{each[name]:.3f}" for name in ("precision", "recall", "f1")),
            str(each["support"]),
        )
        for each in metrics["per_class"]
    ]
    lines += ["", table(("class", "precision", "recall", "F1", "clips"), rows)]
    classes = metrics["classes"]
    if len(classes) <= LARGEST_MATRIX:
        header = ("true \\ predicted", *_shortened(classes))
        counts = metrics["confusion_matrix"]
        body = [
            (label, *(str(count) for count in row))
            for label, row in zip(classes, counts, strict=True)
        ]
        lines += ["", table(header, body)]
    return "\n".join(lines)


def _shortened(classes: list[str]) -> list[str]:
    """Class names that fit above a column, if they still differ then."""
    wide = WIDEST_COLUMN
    short = [name if len(name) <= wide else name[: wide - 1] + "…" for name in classes]
    return short if len(set(short)) == len(set(classes)) else classes
