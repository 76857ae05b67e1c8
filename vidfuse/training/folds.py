"""Cross-validation by group, then one model fitted on everything."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from vidfuse.data.clip import Clip
from vidfuse.data.folds import make_folds
from vidfuse.data.splits import Split
from vidfuse.features.gather import Gathered
from vidfuse.features.store import EntryInfo
from vidfuse.metrics import summary
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.training.baselines import Scores, geometry, majority
from vidfuse.training.config import TrainConfig
from vidfuse.training.fitting import (
    examples_of,
    facts_of,
    labels_of,
    new_fit,
    run_epochs,
    save_model,
    take_best,
)
from vidfuse.training.prepare import Material
from vidfuse.training.runs import Run, named_run, new_run

if TYPE_CHECKING:
    from vidfuse.training.fit import Fit

REPORTED = ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval")


def train_folds(
    dataset: Path | str,
    config: TrainConfig,
    folds: int,
    *,
    progress: Progress | None = None,
    timings: Timings | None = None,
) -> dict[str, Any]:
    """Measure a head by cross-validation, and leave one model fitted on all clips.

    Each outer fold is only tested on; the rest is divided again by group, and its validation part
    chooses the epoch. The model at the end is fitted on every clip for the median of the folds'
    best epochs; nothing is left to measure it on, so the folds' metrics stand for it.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        folds: K, at least 2.
        progress: Receives progress updates.
        timings: The command's clock.

    Returns:
        A summary ready for JSON: metrics over all folds, each fold, baselines, the model's path.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
    """
    config.validate()
    config.to_file()  # what it refuses is told before the work, not behind it
    material = Material(dataset, config, progress or Progress(), timings or Timings())
    with ExitStack() as stack:
        named = None if config.out is None else named_run(config.out, stack)
        return _train_folds(dataset, material, folds, named, stack)


def _train_folds(
    dataset: Path | str, material: Material, folds: int, run: Run | None, stack: ExitStack
) -> dict[str, Any]:
    config, progress, timings = material.config, material.progress, material.timings
    outer = make_folds(
        material.data, folds, split=config.split, seed=config.seed, contents=material.contents
    )
    warnings = material.announce(outer.protocol, outer.warnings)
    wanted = outer.clips
    features = material.gather(wanted, mirrored=wanted)
    clips = [clip for clip in wanted if clip in features]
    classes = material.classes_of(clips)
    run = run or new_run(material.data.name, config.head, stack)
    run.clear()
    run.describe(dataset, config.to_file(), folds)
    run.write_failures(material.failures)

    scores = np.zeros((len(clips), len(classes)))
    rows = []
    for number, split in enumerate(outer.splits, start=1):
        held = _held(clips, split)
        tested = [clip for clip, out in zip(clips, held, strict=True) if out]
        if not tested:
            warnings.append(f"fold {number} has no clip that can be read: left out")
            progress.warn(warnings[-1])
            continue
        fit = _fit_fold(config, features, split, classes, run, number, progress, timings)
        scores[held] = _probabilities(fit, config, features, tested, classes)
        rows.append(_fold_row(number, fit, len(clips), tested, scores[held], classes))
    labels = labels_of(clips, classes).numpy()
    groups = [clip.group for clip in clips]
    metrics = summary(labels, scores, classes, groups)
    infos = [features.info(clip) for clip in clips]
    baselines = _baselines(infos, labels, outer.splits, clips, classes)

    epochs = max(1, round(median(row["best_epoch"] for row in rows)))
    parts: dict[str, Sequence[Clip]] = {"train": clips, "val": []}
    final = new_fit(replace(config, epochs=epochs, patience=0), features, parts, classes)
    run_epochs(final, run, progress, timings, fold=0)
    facts = facts_of(material.data, f"{outer.protocol}; fitted on all clips", config)
    measured = {name: metrics[name] for name in (*REPORTED, "interval_method")}
    facts["split"] = "folds"  # whatever the dataset declares, nothing is left unseen
    facts["cross_validation"] = {"folds": folds, **measured, "baselines": baselines}
    save_model(final, run, material, parts, classes, facts)
    return {
        "model": str(run.model),
        "run": str(run.folder),
        "dataset": str(dataset),
        "head": config.head,
        "classes": classes,
        "clips": len(clips),
        **material.summary(),
        **metrics,
        "folds": rows,
        "baselines": baselines,
        "protocol": outer.protocol,
        "epochs": epochs,
        "parameters": sum(p.numel() for p in final.head.parameters()),
        "warnings": warnings,
        "timings": timings.to_dict(),
    }


def _held(clips: Sequence[Clip], split: Split) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which clips are in the fold."""
    test = set(split.test)
    return np.array([clip in test for clip in clips])


def _fit_fold(
    config: TrainConfig,
    features: Gathered,
    split: Split,
    classes: list[str],
    run: Run,
    number: int,
    progress: Progress,
    timings: Timings,
) -> Fit:
    parts = {
        "train": [clip for clip in split.train if clip in features],
        "val": [clip for clip in split.val if clip in features],
    }
    fit = new_fit(config, features, parts, classes)
    run_epochs(fit, run, progress, timings, fold=number)
    take_best(fit)
    return fit


def _probabilities(
    fit: Fit,
    config: TrainConfig,
    features: Gathered,
    clips: Sequence[Clip],
    classes: list[str],
) -> Scores:
    """Class probabilities ``[N, C]`` of the clips of a fold."""
    from vidfuse.training.fit import predict_logits

    examples = examples_of(config, features, clips, classes)
    logits = predict_logits(fit.head, examples, device=fit.device, batch_size=64)
    probabilities: Scores = logits.double().softmax(-1).numpy()
    return probabilities


def _fold_row(
    number: int,
    fit: Fit,
    known: int,
    tested: Sequence[Clip],
    scores: Scores,
    classes: list[str],
) -> dict[str, Any]:
    labels = labels_of(tested, classes).numpy()
    metrics = summary(labels, scores, classes, [clip.group for clip in tested])
    return {
        "fold": number,
        "train": known - len(tested) - len(fit.val),
        "val": len(fit.val),
        "clips": len(tested),
        "groups": sorted({clip.group for clip in tested if clip.group is not None}),
        "accuracy": metrics["accuracy"],
        "macro_f1": metrics["macro_f1"],
        "best_epoch": fit.best_epoch,
    }


def _baselines(
    infos: Sequence[EntryInfo],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    splits: Sequence[Split],
    clips: Sequence[Clip],
    classes: list[str],
) -> dict[str, Any]:
    """What needs no picture, on the same folds."""
    count = len(classes)
    scores = {name: np.zeros((len(labels), count)) for name in ("majority", "geometry")}
    for split in splits:
        held = _held(clips, split)
        scores["majority"][held] = majority(labels, ~held, count)
        scores["geometry"][held] = geometry(infos, labels, ~held, count)
    groups = [clip.group for clip in clips]
    results = {name: summary(labels, each, classes, groups) for name, each in scores.items()}
    return {name: {key: each[key] for key in REPORTED} for name, each in results.items()}
