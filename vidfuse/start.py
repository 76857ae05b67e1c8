"""The start of a training: one run, a cross-validation, a run that goes on, or a choice first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidfuse.errors import UserError
from vidfuse.progress import Reporter
from vidfuse.results import FoldsResult, TrainResult
from vidfuse.runs import AUTO_FILE
from vidfuse.training.config import AUTO, TrainConfig
from vidfuse.training.folds import train_folds
from vidfuse.training.run import resume, train


def run_training(
    dataset: Path | str | None,
    settings: Mapping[str, Any],
    *,
    folds: int | None = None,
    budget: str | None = None,
    resumed: Path | str | None = None,
    reporter: Reporter,
) -> TrainResult | FoldsResult:
    """Train on a dataset, cross-validate on it, or go on with a run that was cut off.

    Args:
        dataset: A dataset's folder or manifest.
        settings: Names and values of fields of ``TrainConfig``.
        folds: Cross-validate with so many folds.
        budget: Time for the choice of ``head="auto"``, such as ``20m``.
        resumed: A run folder, instead of a dataset.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The arguments do not go together, or the dataset, the settings or the machine
            do not allow it.
    """
    if resumed is not None:
        if dataset is not None or folds is not None or budget is not None:
            raise UserError(
                "a run is resumed on its own dataset, without folds and without a budget",
                f"Write only: vidfuse train --resume {resumed}",
            )
        if (Path(resumed) / AUTO_FILE).is_file():
            from vidfuse.comparison.auto import resume_auto

            return resume_auto(Path(resumed), settings, reporter=reporter)
        return resume(resumed, settings, reporter=reporter)
    if dataset is None:
        raise UserError("missing argument 'DATASET'", "Try: vidfuse train --help")
    config = TrainConfig.from_mapping(settings)
    if config.timeline is not None and (folds is not None or config.head == AUTO):
        raise UserError(
            "long videos are learned from in one run, with a head that is named",
            "Leave out --folds and --head auto, or --timeline.",
        )
    if config.head == AUTO:
        from vidfuse.comparison.auto import train_auto

        return train_auto(dataset, config, budget=budget, folds=folds, reporter=reporter)
    if budget is not None:
        raise UserError(
            "--budget is the time in which --head auto chooses, and no head is to be chosen",
            "Use --head auto, or leave it out.",
        )
    if folds is None:
        return train(dataset, config, reporter=reporter)
    return train_folds(dataset, config, folds, reporter=reporter)
