"""From fits to a table: score, cost and order sensitivity of each head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import find_backbone
from vidfuse.comparison.config import REFERENCE, CompareConfig
from vidfuse.comparison.fit_store import (
    KINDS,
    ORDERED,
    REVERSED,
    SHUFFLED,
    TESTED_SHUFFLED,
    FitResult,
)
from vidfuse.comparison.plan import Candidate, Plan, Task
from vidfuse.features.cache import EntryInfo
from vidfuse.metrics import repeated_summary
from vidfuse.statistics import holm, mean_interval, paired_sign_flip
from vidfuse.training.baselines import geometry, majority

if TYPE_CHECKING:
    from vidfuse.features.table import FeatureTable

Row = dict[str, Any]
Predictions = NDArray[np.int64]
BASELINES = ("majority", "geometry")
TO_BEST = ("to_best", "to_best_interval", "to_best_p_value")
OTHER_ORDERS = (SHUFFLED, "shuffled_p_value", TESTED_SHUFFLED, REVERSED)
MEASURES = ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "accuracy_by_seed")


def predictions(
    plan: Plan, results: Mapping[Task, FitResult], candidate: Candidate
) -> dict[str, Predictions]:
    """Predicted classes [S, N] of one whose tasks are all done, for each order that was tested."""
    tasks = list(plan.tasks([candidate]))
    shape = (len(plan.splits), len(plan.clips))
    found = {kind: np.zeros(shape, np.int64) for kind in results[tasks[0]].scores}
    for task in tasks:
        rows = plan.splits[task.seed][task.fold]["test"]
        for kind, scores in results[task].scores.items():
            found[kind][task.seed, rows] = scores.argmax(1)
    return found


def baseline_predictions(plan: Plan, infos: Sequence[EntryInfo]) -> dict[str, Predictions]:
    """Predicted classes [S, N] of the baselines, which read no frame, on the same folds."""
    labels, count = plan.labels, len(plan.classes)
    found = {name: np.zeros((len(plan.splits), len(labels)), np.int64) for name in BASELINES}
    for seed in range(len(plan.splits)):
        for held in plan.held(seed):
            found["majority"][seed, held] = majority(labels, ~held, count).argmax(1)
            found["geometry"][seed, held] = geometry(infos, labels, ~held, count).argmax(1)
    return found


def hit_shares(plan: Plan, predicted: Predictions) -> NDArray[np.float64]:
    """Share of the seeds in which each clip [N] was classified correctly."""
    return np.asarray((predicted == plan.labels).mean(0), np.float64)


def measure(plan: Plan, predicted: Predictions) -> Row:
    """Accuracy and macro F1 with intervals, averaged over seeds."""
    found = repeated_summary(plan.labels, predicted, len(plan.classes), plan.groups)
    found["accuracy_by_seed"] = found.pop("accuracy_by_run")
    return found


def head_rows(
    plan: Plan,
    results: Mapping[Task, FitResult],
    found: Mapping[Candidate, Mapping[str, Predictions]],
) -> list[Row]:
    """One row for each head of one encoder, the most accurate first.

    Args:
        plan: The clips and folds.
        results: Results of the tasks.
        found: Predictions of each, as of ``predictions``.
    """
    shares = {each.head: hit_shares(plan, kinds[ORDERED]) for each, kinds in found.items()}
    rows = []
    for each, kinds in found.items():
        metadata = [results[task].metadata for task in plan.tasks([each])]
        chosen = Counter((fit["lr"], fit["dropout"]) for fit in metadata)
        row = {"name": each.head, **measure(plan, kinds[ORDERED])}
        row |= _differences(plan, shares, each.head)
        row |= {
            **_other_orders(plan, kinds),
            "training_seconds": float(np.mean([fit["training_seconds"] for fit in metadata])),
            "chosen": [
                {"lr": lr, "dropout": dropout, "fits": count}
                for (lr, dropout), count in chosen.most_common()
            ],
            "frame_budget": _frame_budget(plan, results, each),
        }
        rows.append(row)
    others = [row for row in rows if row["p_value_uncorrected"] is not None]
    corrected = holm([row["p_value_uncorrected"] for row in others])
    for row, p_value in zip(others, corrected, strict=True):
        row["p_value"] = p_value
    return sorted(rows, key=lambda row: (-row["accuracy"], row["name"]))


def multiply_adds_of(backbone: str, frames: int) -> int:
    """Multiply-adds of an encoder for the frames that a head reads of a clip."""
    info = find_backbone(backbone)[1]
    return round(info.gmacs * 1e9 * frames / info.steps)


def set_beside_best(
    plan: Plan,
    shares: Mapping[Candidate, NDArray[np.float64]],
    row_of: Mapping[Candidate, Row],
    frames: int,
) -> list[Row]:
    """Rows of several encoders as one table, the most accurate first, each beside the best.

    Of equally accurate ones the one with the fewest multiply-adds, those of the encoder with it,
    comes first. The p-values are not corrected: a correction would call more of them equal to the
    best.

    Args:
        plan: The clips and folds.
        shares: Share of the seeds in which each was right on each clip [N].
        row_of: The row of each among the heads of its encoder, with costs; it gets ``backbone``,
            and its difference to the best.
        frames: Frames that a head reads of a clip.
    """

    def rank(each: Candidate) -> tuple[float, int]:
        cost = row_of[each]["multiply_adds"] + multiply_adds_of(each.backbone, frames)
        return float(shares[each].mean()), -cost

    best = max(shares, key=rank)
    for each, row in row_of.items():
        gained = shares[each] - shares[best]
        row |= {"backbone": each.backbone, **dict.fromkeys(TO_BEST)}
        if each != best:
            row["to_best"] = float(gained.mean())
            row["to_best_interval"] = mean_interval(gained, plan.groups)
            row["to_best_p_value"] = _p_value(plan, shares[each], shares[best])
    rows = row_of.values()
    return sorted(rows, key=lambda row: (row is not row_of[best], -row["accuracy"], row["name"]))


def baseline_rows(plan: Plan, found: Mapping[str, Predictions]) -> dict[str, Row]:
    """The baselines, which read no frame, measured likewise."""
    rows = {name: measure(plan, each) for name, each in found.items()}
    return {name: {key: row[key] for key in MEASURES} for name, row in rows.items()}


def _differences(plan: Plan, shares: Mapping[str, NDArray[np.float64]], head: str) -> Row:
    """Difference of a head from the reference; ``p_value`` is filled in with all heads."""
    names = ("difference", "difference_interval", "p_value", "p_value_uncorrected")
    row = dict.fromkeys(names)
    if head == REFERENCE or REFERENCE not in shares:  # it may have failed
        return row
    gained = shares[head] - shares[REFERENCE]
    return row | {
        "difference": float(gained.mean()),
        "difference_interval": mean_interval(gained, plan.groups),
        "p_value_uncorrected": _p_value(plan, shares[head], shares[REFERENCE]),
    }


def _other_orders(plan: Plan, kinds: Mapping[str, Predictions]) -> Row:
    """Accuracy with frames in other orders; None where they were not measured."""
    if SHUFFLED not in kinds:
        return dict.fromkeys(OTHER_ORDERS)
    hits = {kind: hit_shares(plan, kinds[kind]) for kind in KINDS}
    row = {kind: float(hits[kind].mean()) for kind in (SHUFFLED, TESTED_SHUFFLED, REVERSED)}
    return row | {"shuffled_p_value": _p_value(plan, hits[ORDERED], hits[SHUFFLED])}


def _frame_budget(
    plan: Plan, results: Mapping[Task, FitResult], candidate: Candidate
) -> Row | None:
    """Accuracy against frames over all folds and seeds; None of a head that reads every frame."""
    from vidfuse.heads import head_class
    from vidfuse.inference.frame_budget import averaged

    if not head_class(candidate.head).selects_frames:
        return None
    tasks = list(plan.tasks([candidate]))
    return averaged(
        [results[task].metadata["frame_budget"] for task in tasks],
        [len(plan.splits[task.seed][task.fold]["test"]) for task in tasks],
    )


def _p_value(plan: Plan, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return paired_sign_flip(one, other, plan.groups)


def costs(head: str, config: CompareConfig, table: FeatureTable, classes: int) -> Row:
    """Cost of a head: counted, and measured on this machine.

    Args:
        head: Its name.
        config: All settings.
        table: Features on the grid that it reads.
        classes: Number of classes C.
    """
    from vidfuse.backbones.imports import resolve_device
    from vidfuse.heads import cost
    from vidfuse.training.fit import new_head

    _, channels, side, _ = table.features.shape
    built = new_head(config.training(head), channels=channels, grid=side, classes=classes)
    counted = cost.count(built, config.frames)
    taken = cost.measure(built.to(resolve_device(config.device)), config.frames)
    return {
        "grid": side,
        "order_aware": built.order_aware,
        "reversal_aware": built.reversal_aware,
        "parameters": counted.parameters,
        "multiply_adds": counted.multiply_adds,
        "latency_ms": taken.alone,
        "latency_batched_ms": taken.batched,
        "latency_batch": taken.batch,
    }
