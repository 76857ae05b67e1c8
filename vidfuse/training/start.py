"""The start of a training: one run, a cross-validation, or a run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidfuse.errors import UserError
from vidfuse.progress import Reporter
from vidfuse.results import FoldsResult, TrainResult
from vidfuse.training.config import TrainConfig
from vidfuse.training.folds import train_folds
from vidfuse.training.run import resume, train


def run_training(
    dataset: Path | str | None,
    settings: Mapping[str, Any],
    *,
    folds: int | None = None,
    resumed: Path | str | None = None,
    reporter: Reporter,
) -> TrainResult | FoldsResult:
    """Train on a dataset, cross-validate on it, or go on with a run that was cut off.

    Args:
        dataset: A dataset's folder or manifest.
        settings: Names and values of fields of ``TrainConfig``.
        folds: Cross-validate with so many folds.
        resumed: A run folder, instead of a dataset.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The arguments do not go together, or the dataset, the settings or the machine
            do not allow it.
    """
    if resumed is not None:
        if dataset is not None or folds is not None:
            raise UserError(
                "a run is resumed on its own dataset and without folds",
                f"Write only: vidfuse train --resume {resumed}",
            )
        return TrainResult.from_dict(resume(resumed, settings, reporter=reporter))
    if dataset is None:
        raise UserError("missing argument 'DATASET'", "Try: vidfuse train --help")
    config = TrainConfig.from_mapping(settings)
    if folds is None:
        return TrainResult.from_dict(train(dataset, config, reporter=reporter))
    return FoldsResult.from_dict(train_folds(dataset, config, folds, reporter=reporter))
