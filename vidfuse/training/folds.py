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
from vidfuse.features.build import summary as summary_of
from vidfuse.features.cache import EntryInfo
from vidfuse.features.extract import ExtractionStats
from vidfuse.features.table import FeatureTable
from vidfuse.metrics import summary
from vidfuse.progress import Reporter
from vidfuse.results import FoldsResult
from vidfuse.runs import Run, named_run, new_run
from vidfuse.training.baselines import Scores, geometry, majority
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import TrainingData
from vidfuse.training.steps import labels_of, new_fit, run_epochs, save_model

if TYPE_CHECKING:
    from torch import Tensor

    from vidfuse.training.fit import Fit

REPORTED = ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval")


def train_folds(
    dataset: Path | str,
    config: TrainConfig,
    folds: int,
    *,
    reporter: Reporter | None = None,
    run: Run | None = None,
    chosen: Sequence[TrainConfig] = (),
    data: TrainingData | None = None,
) -> FoldsResult:
    """Measure a head by cross-validation, and leave one model fitted on all clips.

    Each outer fold is only tested on; the rest is divided again by group, and its validation part
    chooses the epoch. The model at the end is fitted on every clip for the median of the folds'
    best epochs; nothing is left to measure it on, so the folds' metrics stand for it.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        folds: K, at least 2.
        reporter: Receives progress updates and collects the time of each stage.
        run: A new run whose folder the caller holds; None opens one.
        chosen: Settings for each fold, and for the model at the end, where they differ: what was
            chosen without the clips that the fold tests on.
        data: The dataset with the settings of the model at the end, where the caller has read it.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
    """
    config.validate()
    config.to_file()  # what it refuses is told before the work, not behind it
    configs = list(chosen) or [config] * (folds + 1)
    data = data or TrainingData(dataset, configs[-1], reporter or Reporter())
    with ExitStack() as stack:
        if run is None and config.out is not None:
            run = named_run(config.out, stack)
        return _train_folds(dataset, data, configs, run, stack)


def _train_folds(
    dataset: Path | str,
    data: TrainingData,
    configs: Sequence[TrainConfig],
    run: Run | None,
    stack: ExitStack,
) -> FoldsResult:
    config, reporter, folds = data.config, data.reporter, len(configs) - 1
    outer = make_folds(
        data.data, folds, split=config.split, seed=config.seed, contents=data.contents
    )
    warnings = data.announce(outer.protocol, outer.warnings)
    wanted = outer.clips
    tables: dict[tuple[Any, ...], FeatureTable] = {}
    all_stats: list[ExtractionStats] = []
    for each in configs[::-1]:
        if _features(each) not in tables:
            own = data if each is config else data.with_config(each)
            tables[_features(each)] = own.gather(wanted, augmented=wanted)
            all_stats += own.all_stats
    clips = [clip for clip in wanted if all(clip in table.rows for table in tables.values())]
    classes = data.classes_of(clips)
    run = run or new_run(data.data.name, config.head, stack)
    extraction = summary_of(data.extractor, all_stats)
    run.describe(dataset, config.to_file(), extraction["failures"], folds)

    scores = np.zeros((len(clips), len(classes)))
    rows = []
    alike: dict[bool, list[int]] = {True: [], False: []}  # best epochs, with the final settings
    weights: list[Tensor] = []  # of the parts of the logits, likewise; their logarithms
    for number, (split, each) in enumerate(zip(outer.splits, configs, strict=False), start=1):
        table = tables[_features(each)]
        held = _held(clips, split)
        tested = [clip for clip, out in zip(clips, held, strict=True) if out]
        if not tested:
            warnings.append(f"fold {number} has no clip that can be read: left out")
            reporter.warn(warnings[-1])
            continue
        fit, chose = _fit_fold(each, table, clips, split, classes, run, number, reporter)
        scores[held] = _probabilities(fit, table, tested, classes)
        rows.append(_fold_row(number, fit, len(clips), chose, tested, scores[held], classes))
        alike[each == config].append(fit.best_epoch)
        if each == config and chose:
            weights.append(fit.best_weights.log())
    labels = labels_of(clips, classes).numpy()
    groups = [clip.group for clip in clips]
    metrics = summary(labels, scores, classes, groups)
    table = tables[_features(config)]
    infos = [table.infos[table.rows[clip]] for clip in clips]
    baselines = _baselines(infos, labels, outer.splits, clips, classes)

    epochs = max(1, round(median(alike[True] or alike[False])))
    parts: dict[str, Sequence[Clip]] = {"train": clips, "val": []}
    final = new_fit(replace(config, epochs=epochs, patience=0), table, parts, classes)
    if weights:  # no clips are left to find its own on
        import torch

        final.weights = torch.stack(weights).mean(0).exp()
    run_epochs(final, run, reporter, "All clips", {"fold": 0})
    measured = {name: metrics[name] for name in (*REPORTED, "interval_method")}
    save_model(
        final,
        run,
        data,
        parts,
        classes,
        f"{outer.protocol}; fitted on all clips",
        split="folds",  # whatever the dataset declares, nothing is left unseen
        cross_validation={"folds": folds, **measured, "baselines": baselines},
    )
    return FoldsResult.from_dict(
        {
            "model": str(run.model),
            "run": str(run.folder),
            "dataset": str(dataset),
            "head": config.head,
            "classes": classes,
            "clips": len(clips),
            **extraction,
            **metrics,
            "folds": rows,
            "baselines": baselines,
            "protocol": outer.protocol,
            "epochs": epochs,
            "parameters": sum(p.numel() for p in final.head.parameters()),
            "warnings": warnings,
            "timings": reporter.timings(),
        }
    )


def _features(config: TrainConfig) -> tuple[Any, ...]:
    """The settings in which choices may differ and that change the features."""
    return config.backbone, config.grid


def _held(clips: Sequence[Clip], split: Split) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Select the clips that are in the fold [N]."""
    test = set(split.test)
    return np.array([clip in test for clip in clips])


def _fit_fold(
    config: TrainConfig,
    table: FeatureTable,
    clips: Sequence[Clip],
    split: Split,
    classes: list[str],
    run: Run,
    number: int,
    reporter: Reporter,
) -> tuple[Fit, int]:
    """The fit of a fold, and how many clips chose its epoch."""
    readable = set(clips)
    parts = {
        "train": [clip for clip in split.train if clip in readable],
        "val": [clip for clip in split.val if clip in readable],
    }
    fit = new_fit(config, table, parts, classes)
    task = f"Fold {number}"
    run_epochs(fit, run, reporter, task, {"fold": number})
    if config.refit and parts["val"]:
        whole = {"train": [*parts["train"], *parts["val"]], "val": []}
        fit = new_fit(config, table, whole, classes, after=fit)
        run_epochs(fit, run, reporter, f"{task}, refit", {"fold": number, "refit": True})
    fit.take_best()
    return fit, len(parts["val"])


def _probabilities(
    fit: Fit, table: FeatureTable, clips: Sequence[Clip], classes: list[str]
) -> Scores:
    """Class probabilities ``[N, C]`` of the clips of a fold."""
    from vidfuse.training.examples import examples_of, predict

    rows = [table.rows[clip] for clip in clips]
    examples = examples_of(table, rows, labels_of(clips, classes))
    logits, _ = predict(fit.head, examples, device=fit.device, batch_size=64)
    probabilities: Scores = logits.double().softmax(-1).numpy()
    return probabilities


def _fold_row(
    number: int,
    fit: Fit,
    known: int,
    chose: int,
    tested: Sequence[Clip],
    scores: Scores,
    classes: list[str],
) -> dict[str, Any]:
    labels = labels_of(tested, classes).numpy()
    metrics = summary(labels, scores, classes, [clip.group for clip in tested])
    return {
        "fold": number,
        "train": known - len(tested) - chose,
        "val": chose,
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
    """Measure predictions that need no frame, on the same folds."""
    count = len(classes)
    scores = {name: np.zeros((len(labels), count)) for name in ("majority", "geometry")}
    for split in splits:
        held = _held(clips, split)
        scores["majority"][held] = majority(labels, ~held, count)
        scores["geometry"][held] = geometry(infos, labels, ~held, count)
    groups = [clip.group for clip in clips]
    results = {name: summary(labels, each, classes, groups) for name, each in scores.items()}
    return {name: {key: each[key] for key in REPORTED} for name, each in results.items()}
