"""Figures of a comparison: the leaderboard, accuracy against cost, and against frames."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidfuse.atomic import write_whole
from vidfuse.comparison.leaderboard import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEADERBOARD = "leaderboard.png"
PARETO = "pareto.png"
FRAME_BUDGET = "frame_budget.png"
HEAD, TAKEN, BASELINE = "#4c72b0", "#c44e52", "#8c8c8c"
RIVALS = {"uniform": "#55a868", "random": BASELINE, "early_exit": "#dd8452"}
DOTS_PER_INCH = 150


def draw(folder: Path, summary: dict[str, Any]) -> None:
    """Write the figures; accuracy against frames only where a head selects its frames.

    Args:
        folder: Folder of the figures.
        summary: The summary that ``compare`` returns.
    """
    # Its first use on a machine would otherwise be printed on standard error.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    # The figure by itself, and not pyplot, which would look for a screen and keep figures alive.
    from matplotlib.figure import Figure

    heads, baselines = summary["heads"], summary["baselines"]
    figure = Figure(figsize=(7, 1.6 + 0.3 * (len(heads) + len(baselines))), layout="constrained")
    _draw_leaderboard(figure.subplots(), summary)
    _save(figure, folder / LEADERBOARD)
    if "backbones" in summary:  # the cost of a head is not that of its encoder
        (folder / PARETO).unlink(missing_ok=True)
    else:
        figure = Figure(figsize=(7, 5), layout="constrained")
        _draw_pareto(figure.subplots(), summary)
        _save(figure, folder / PARETO)
    selecting = [row for row in heads if row["frame_budget"]]
    if not selecting:
        (folder / FRAME_BUDGET).unlink(missing_ok=True)  # of a call with other heads
        return
    figure = Figure(figsize=(7, 4.5 * len(selecting)), layout="constrained")
    panels = figure.subplots(len(selecting), squeeze=False)[:, 0]
    for axes, row in zip(panels, selecting, strict=True):
        _draw_frame_budget(axes, row, _title(summary))
    _save(figure, folder / FRAME_BUDGET)


def pareto_front(rows: list[Row]) -> list[Row]:
    """The heads to which no other is both as cheap and more accurate, cheapest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["multiply_adds"], -row["accuracy"])):
        if not front or row["accuracy"] > front[-1]["accuracy"]:
            front.append(row)
    return front


def _draw_leaderboard(axes: Axes, summary: dict[str, Any]) -> None:
    taken = _taken(summary)
    rows = [(_label(row), row, TAKEN if row is taken else HEAD) for row in summary["heads"]]
    rows += [(name, row, BASELINE) for name, row in summary["baselines"].items()]
    for y, (_, row, shade) in enumerate(rows):
        low, high = row["accuracy_interval"] or (row["accuracy"], row["accuracy"])
        axes.plot([low, high], [y, y], color=shade, linewidth=2)
        axes.plot(row["accuracy"], y, "o", color=shade, markersize=6)
        if row.get("shuffled") is not None:
            axes.plot(row["shuffled"], y, "x", color="black", markersize=5)
    axes.plot([], [], "o-", color=HEAD, label="accuracy, 95 % interval")
    if summary["protocol"]["settings"]["orders"]:
        axes.plot([], [], "x", color="black", label="trained and tested on shuffled frames")
    if taken:
        axes.plot([], [], "o-", color=TAKEN, label="recommended")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("accuracy")
    axes.set_title(_title(summary), fontsize=10)
    # Below the axes, because intervals may be anywhere in them.
    axes.figure.legend(fontsize=7, loc="outside lower center", ncols=3)


def _draw_pareto(axes: Axes, summary: dict[str, Any]) -> None:
    rows = summary["heads"]
    front = pareto_front(rows)
    axes.step(
        [row["multiply_adds"] for row in front],
        [row["accuracy"] for row in front],
        where="post",
        color=BASELINE,
        linewidth=1,
        label="no head is cheaper and more accurate",
    )
    for row in rows:
        shade = TAKEN if row is _taken(summary) else HEAD
        axes.plot(row["multiply_adds"], row["accuracy"], "o", color=shade)
        axes.annotate(
            row["name"],
            (row["multiply_adds"], row["accuracy"]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
        )
    for (name, row), style in zip(summary["baselines"].items(), (":", "--"), strict=True):
        axes.axhline(row["accuracy"], color=BASELINE, linestyle=style, linewidth=1, label=name)
    axes.set_xscale("log")
    axes.margins(x=0.12)  # for the names beside the dots
    axes.set_xlabel("multiply-adds of the head for a clip")
    axes.set_ylabel("accuracy")
    axes.set_title(_title(summary), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best")


def _draw_frame_budget(axes: Axes, row: Row, title: str) -> None:
    curve, own = row["frame_budget"]["curve"], row["frame_budget"]["own"]
    frames = [point["frames"] for point in curve]
    for rival, colour in RIVALS.items():
        label = rival.replace("_", " ")
        axes.plot(frames, [point[rival] for point in curve], color=colour, label=label)
    name = _label(row)
    axes.plot(frames, [point["policy"] for point in curve], color=HEAD, linewidth=2, label=name)
    axes.plot(own["frames"], own["policy"], "o", color=HEAD, label=f"{name}, as it stops itself")
    axes.set_xlabel("frames observed, mean over clips")
    axes.set_ylabel("accuracy")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best")


def _label(row: Row) -> str:
    """A head, with its encoder where there are several."""
    return f"{row['name']} on {row['backbone']}" if "backbone" in row else row["name"]


def _taken(summary: dict[str, Any]) -> Row | None:
    """The row that is recommended: of several encoders, one of that which is the best."""
    heads = summary["heads"]
    own = (row for row in heads if row.get("backbone") == heads[0].get("backbone"))
    return next((row for row in own if row["name"] == summary["recommended"]), None)


def _save(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    write_whole(path, content.getvalue())


def _title(summary: dict[str, Any]) -> str:
    protocol = summary["protocol"]
    name = Path(summary["dataset"]).name
    return (
        f"{name}: {summary['clips']} clips, {protocol['folds']} folds, "
        f"{protocol['seeds']} seed{'s' * (protocol['seeds'] != 1)}, {protocol['epochs']} epochs"
    )
