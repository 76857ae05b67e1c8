"""From fits to a table: what each head scores, what it costs, and whether order matters to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.evaluation.compare.config import REFERENCE, CompareConfig
from vidfuse.evaluation.compare.kept import (
    KINDS,
    ORDERED,
    REVERSED,
    SHUFFLED,
    TESTED_SHUFFLED,
    Outcome,
)
from vidfuse.evaluation.compare.plan import Plan, Task
from vidfuse.features.store import EntryInfo
from vidfuse.metrics import holm, mean_interval, paired_sign_flip, repeated_summary
from vidfuse.training.baselines import geometry, majority

if TYPE_CHECKING:
    from vidfuse.features.table import FeatureTable

Row = dict[str, Any]
Predictions = NDArray[np.int64]
BASELINES = ("majority", "geometry")
MEASURES = ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "accuracy_by_seed")


def predictions(plan: Plan, outcomes: Mapping[Task, Outcome], head: str) -> dict[str, Predictions]:
    """Predicted classes [S, N] of a head whose tasks are all done, for each order of frames."""
    found = {kind: np.zeros((len(plan.splits), len(plan.clips)), np.int64) for kind in KINDS}
    for task in plan.tasks([head]):
        rows = plan.splits[task.seed][task.fold]["test"]
        for kind, scores in outcomes[task].scores.items():
            found[kind][task.seed, rows] = scores.argmax(1)
    return found


def baseline_predictions(plan: Plan, infos: Sequence[EntryInfo]) -> dict[str, Predictions]:
    """Predicted classes [S, N] of what needs no picture, on the same folds."""
    labels, count = plan.labels, len(plan.classes)
    found = {name: np.zeros((len(plan.splits), len(labels)), np.int64) for name in BASELINES}
    for seed in range(len(plan.splits)):
        for held in plan.held(seed):
            found["majority"][seed, held] = majority(labels, ~held, count).argmax(1)
            found["geometry"][seed, held] = geometry(infos, labels, ~held, count).argmax(1)
    return found


def right(plan: Plan, predicted: Predictions) -> NDArray[np.float64]:
    """Share of the seeds that were right on each clip [N]."""
    shares: NDArray[np.float64] = (predicted == plan.labels).mean(0)
    return shares


def measure(plan: Plan, predicted: Predictions) -> Row:
    """Accuracy and macro F1 with intervals, averaged over seeds."""
    found = repeated_summary(plan.labels, predicted, len(plan.classes), plan.groups)
    found["accuracy_by_seed"] = found.pop("accuracy_by_run")
    return found


def head_rows(
    plan: Plan, outcomes: Mapping[Task, Outcome], found: Mapping[str, Mapping[str, Predictions]]
) -> list[Row]:
    """One row for each head, the most accurate first.

    Args:
        plan: The clips and folds.
        outcomes: What the tasks found.
        found: Predictions of each head, as of ``predictions``.
    """
    shares = {head: right(plan, kinds[ORDERED]) for head, kinds in found.items()}
    rows = []
    for head, kinds in found.items():
        orders = {kind: float(right(plan, kinds[kind]).mean()) for kind in KINDS}
        facts = [outcomes[task].facts for task in plan.tasks([head])]
        chosen = Counter((each["lr"], each["dropout"]) for each in facts)
        row = {"name": head, **measure(plan, kinds[ORDERED])}
        row |= _differences(plan, shares, head)
        row |= {
            "shuffled": orders[SHUFFLED],
            "shuffled_p_value": _p_value(plan, shares[head], right(plan, kinds[SHUFFLED])),
            "tested_shuffled": orders[TESTED_SHUFFLED],
            "reversed": orders[REVERSED],
            "training_seconds": float(np.mean([each["training_seconds"] for each in facts])),
            "chosen": [
                {"lr": lr, "dropout": dropout, "fits": count}
                for (lr, dropout), count in chosen.most_common()
            ],
            "frame_budget": _frame_budget(plan, outcomes, head),
        }
        rows.append(row)
    others = [row for row in rows if row["p_value_uncorrected"] is not None]
    corrected = holm([row["p_value_uncorrected"] for row in others])
    for row, p_value in zip(others, corrected, strict=True):
        row["p_value"] = p_value
    return sorted(rows, key=lambda row: (-row["accuracy"], row["name"]))


def baseline_rows(plan: Plan, found: Mapping[str, Predictions]) -> dict[str, Row]:
    """What needs no picture, measured likewise."""
    rows = {name: measure(plan, each) for name, each in found.items()}
    return {name: {key: row[key] for key in MEASURES} for name, row in rows.items()}


def _differences(plan: Plan, shares: Mapping[str, NDArray[np.float64]], head: str) -> Row:
    """How a head differs from the reference; ``p_value`` is filled in with all heads."""
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


def _frame_budget(plan: Plan, outcomes: Mapping[Task, Outcome], head: str) -> Row | None:
    """Accuracy against frames over all folds and seeds; None of a head that reads every frame."""
    from vidfuse.evaluation.frame_budget import averaged
    from vidfuse.fusion import head_class

    if not head_class(head).chooses_frames:
        return None
    tasks = list(plan.tasks([head]))
    return averaged(
        [outcomes[task].facts["frame_budget"] for task in tasks],
        [len(plan.splits[task.seed][task.fold]["test"]) for task in tasks],
    )


def _p_value(plan: Plan, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return paired_sign_flip(one, other, plan.groups)


def costs(head: str, config: CompareConfig, table: FeatureTable, classes: int) -> Row:
    """What a head costs: counted, and measured on this machine.

    Args:
        head: Its name.
        config: All settings.
        table: Features on the grid that it reads.
        classes: Number of classes C.
    """
    from vidfuse.features.setup import resolve_device
    from vidfuse.fusion import cost
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
