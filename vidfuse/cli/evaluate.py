"""``vidfuse evaluate``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, print_text, shortened, table
from vidfuse.cli.options import (
    FormatOption,
    LayoutOption,
    ModelOption,
    chosen_models,
    with_settings,
)
from vidfuse.cli.timeline_scores import timeline_text
from vidfuse.errors import UserError
from vidfuse.inference.config import TIMELINE_FIELDS, TimelineConfig
from vidfuse.results import Evaluation
from vidfuse.timeline.results import TimelineEvaluation

app = typer.Typer(**PLAIN)
HELP = """\
Measure a trained model on clips that it has not seen.

--timeline measures what happens when in long videos, against annotations: a file of any format that
vidfuse reads, or a folder of such files. Videos are found by the names in them, else by their own
names among VIDEOS or beside the annotations. --predictions compares two such files without a model.
Exits with 1 where a clip or video could not be read.
"""
TIMELINES = "Timelines"  # title of a group of options
LARGEST_MATRIX = 12  # classes whose confusion matrix still fits a terminal


@app.command(cls=Command, help=HELP)
@with_settings(TimelineConfig, {"window": TIMELINES})
def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A dataset's folder, or a manifest. For timelines: annotations.",
        ),
    ],
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEOS", help="For timelines: where to look for the annotated videos."
        ),
    ] = None,
    model: ModelOption = None,
    subset: Annotated[
        Literal["auto", "all", "train", "val", "test"],
        typer.Option(
            "--subset",
            help="Which clips. auto: the dataset's test part; where it declares none, and of long "
            "videos, those that the model has not seen.",
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
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline",
            help="Measure timelines of the annotated videos.",
            rich_help_panel=TIMELINES,
        ),
    ] = False,
    predictions: Annotated[
        str | None,
        typer.Option(
            "--predictions",
            metavar="FILE",
            help="Measure the timelines in a file or folder, instead of a model's.",
            rich_help_panel=TIMELINES,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Also write the results of each video, the confusion of moments, and the "
            "timelines.",
            rich_help_panel=TIMELINES,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="X",
            help="Moments per second at which timelines are compared.",
            show_default="25",
            min=0.001,
            rich_help_panel=TIMELINES,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            metavar="X",
            help="Frames per second of the videos, for annotations that count frames.",
            min=0.001,
            rich_help_panel=TIMELINES,
        ),
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse evaluate``."""
    from vidfuse import api

    models = chosen_models(model)
    reporter = ConsoleReporter(BEGAN)
    of_clips = {"split": split, "layout": layout}
    of_timelines = {"out": out, "rate": rate, "fps": fps, **settings}
    metrics: Evaluation | TimelineEvaluation
    if timeline or predictions is not None:
        for name in filter(of_clips.get, of_clips):
            raise UserError(f"--{name} is for clips", "Leave it out, or --timeline.")
        if len(models or []) > 1:
            raise UserError("a timeline is made by one model", "Name one with --model.")
        metrics = api.evaluate_timelines(
            dataset,
            videos or (),
            # The variable VIDFUSE_MODEL does not contradict --predictions.
            model=next(iter((models if predictions is None else model) or []), None),
            subset=subset if subset != "auto" else None,
            predictions=predictions,
            rate=rate,
            fps=fps,
            out=out,
            reporter=reporter,
            **settings,
        )
    else:
        for name in filter(of_timelines.get, ("rate", "fps", *TIMELINE_FIELDS)):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} is for timelines", "Add --timeline, or leave it out.")
        if videos:
            raise UserError("one dataset at a time", "VIDEOS are for timelines: add --timeline.")
        metrics = api.evaluate(
            dataset,
            model=models,
            subset=subset,
            split=split,
            layout=layout,
            reporter=reporter,
            **settings,
        )
    if format == "json":
        print_json(metrics.to_dict())
    elif isinstance(metrics, TimelineEvaluation):
        print_text(timeline_text(metrics))
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
        header = ("true \\ predicted", *shortened(metrics.classes))
        body = [
            (label, *(str(count) for count in row))
            for label, row in zip(metrics.classes, metrics.confusion_matrix, strict=True)
        ]
        lines += ["", table(header, body)]
    return "\n".join(lines)
