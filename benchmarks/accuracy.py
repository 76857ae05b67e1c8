"""Accuracy of heads by group folds, beside the trivial baselines.

    python benchmarks/accuracy.py DATASET --heads mean,middle,lstm --folds 5 --seeds 3 \
        --backbone resnet18 [--layer layer3 --weights FILE] [--out result.json]

Each outer fold holds out whole groups; the rest is split again by group into training and
validation, which alone chooses the epoch. All heads see the same folds. Every clip is tested once
per seed; scores are averaged over seeds before intervals (group bootstrap) and the paired group
sign-flip test against `mean`. `geometry` is a nearest neighbour on width, height and number of
frames alone: what it scores, a dataset gives away without any picture.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from vidfuse import api
from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import read_dataset
from vidfuse.data.stratify import assign_groups
from vidfuse.features.config import FeatureConfig
from vidfuse.features.setup import Setup
from vidfuse.features.store import Entry
from vidfuse.metrics import paired_sign_flip, summary
from vidfuse.progress import Progress
from vidfuse.timing import Timings


def main() -> None:
    arguments = parse()
    data = read_dataset(arguments.dataset)
    clips = [clip for clip in data.clips if clip.label is not None]
    classes = data.classes
    labels = np.array([classes.index(str(clip.label)) for clip in clips])
    groups = [clip.group or str(clip.path) for clip in clips]
    features = {
        name: getattr(arguments, name)
        for name in ("backbone", "weights", "layer", "grid", "cache")
        if getattr(arguments, name) is not None
    }
    shapes = geometry(clips, features)
    scores: dict[str, list[np.ndarray]] = {"majority": [], "geometry": []}
    validation: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            folds = fold_of(groups, labels, arguments.folds, seed)
            rows = {
                name: np.zeros((len(clips), len(classes))) for name in (*scores, *arguments.heads)
            }
            for fold in range(arguments.folds):
                test = folds == fold
                rows["majority"][test, np.bincount(labels[~test]).argmax()] = 1
                rows["geometry"][np.flatnonzero(test), nearest(shapes, labels, test)] = 1
                manifest = write_manifest(Path(scratch), clips, groups, test)
                for head in arguments.heads:
                    run = Path(scratch) / f"{head}-{seed}-{fold}"
                    made = api.train(
                        manifest, head=head, seed=seed, out=str(run), **features, **arguments.set
                    )
                    validation.setdefault(head, []).append(made["validation"]["macro_f1"])
                    paths = [clip.path for clip, held in zip(clips, test, strict=True) if held]
                    records = api.predict(paths, model=run, top=len(classes), cache=arguments.cache)
                    for index, record in zip(np.flatnonzero(test), records, strict=True):
                        for each in record["top"]:
                            rows[head][index, classes.index(each["label"])] = each["score"]
                print(f"seed {seed} fold {fold} done", file=sys.stderr, flush=True)
            for name, each in rows.items():
                scores.setdefault(name, []).append(each)
    report(arguments, data, labels, groups, scores, validation)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--heads", default="mean,middle,lstm", type=lambda text: text.split(","))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    for name in ("backbone", "weights", "layer", "grid", "cache", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--set", type=json.loads, default={}, help="more settings, as JSON")
    return parser.parse_args()


def geometry(clips: list[Clip], features: dict[str, str]) -> np.ndarray:
    """Width, height and number of frames of each clip, standardised: [N, 3]."""
    config = FeatureConfig.from_mapping(features)
    setup = Setup(config, Timings(), Progress())
    entries = dict(setup.extractor(setup.spec(config.chosen_grid or 2)).run(clips))
    infos = [entry.info for entry in (entries[clip] for clip in clips) if isinstance(entry, Entry)]
    values = np.array([(info.width, info.height, info.count) for info in infos], float)
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)


def nearest(shapes: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Label of the nearest clip outside the test fold."""
    distances = np.linalg.norm(shapes[test, None] - shapes[None, ~test], axis=-1)
    return labels[~test][distances.argmin(1)]


def fold_of(groups: list[str], labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Outer fold of each clip [N]; a group is in one fold."""
    names = sorted(set(groups))
    counts = [Counter[int]() for _ in names]
    for group, label in zip(groups, labels.tolist(), strict=True):
        counts[names.index(group)][label] += 1
    assigned = assign_groups(counts, [1 / folds] * folds, seed)
    return np.array([assigned[names.index(group)] for group in groups])


def write_manifest(folder: Path, clips: list[Clip], groups: list[str], test: np.ndarray) -> Path:
    """A manifest whose split column holds one fold out."""
    path = folder / "fold.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "group", "split"))
        for clip, group, held in zip(clips, groups, test, strict=True):
            part = "test" if held else "train"
            writer.writerow((clip.path.resolve(), clip.label, group, part))
    return path


def report(
    arguments: argparse.Namespace,
    data: Dataset,
    labels: np.ndarray,
    groups: list[str],
    scores: dict[str, list[np.ndarray]],
    validation: dict[str, list[float]],
) -> None:
    rows = []
    right = {
        name: np.mean([each.argmax(1) == labels for each in runs], 0)
        for name, runs in scores.items()
    }
    for name, runs in scores.items():
        per_seed = [summary(labels, each, data.classes, groups) for each in runs]
        pooled = interval(right[name], groups)
        rows.append(
            {
                "name": name,
                "accuracy": float(right[name].mean()),
                "accuracy_interval": pooled,
                "macro_f1": float(np.mean([each["macro_f1"] for each in per_seed])),
                "accuracy_by_seed": [each["accuracy"] for each in per_seed],
                "p_against_mean": paired_sign_flip(right[name], right["mean"], groups)
                if "mean" in right and name != "mean"
                else None,
                "validation_macro_f1": float(np.mean(validation[name]))
                if name in validation
                else None,
            }
        )
    print(
        f"{data.name}: {len(labels)} clips, {len(set(groups))} groups, {arguments.folds} folds, "
        f"{arguments.seeds} seeds; {platform.machine()}"
    )
    print(f"{'head':10} accuracy [95 % group bootstrap]  macro-F1  p against mean  validation F1")
    for row in rows:
        low, high = row["accuracy_interval"]
        p = "" if row["p_against_mean"] is None else f"{row['p_against_mean']:.3f}"
        inner = "" if row["validation_macro_f1"] is None else f"{row['validation_macro_f1']:.3f}"
        print(f"{row['name']:10} {row['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
              f"{'':13}{row['macro_f1']:.3f}     {p:>8}       {inner:>8}")  # fmt: skip
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"dataset": data.name, "rows": rows}, indent=2))


def interval(right: np.ndarray, groups: list[str]) -> tuple[float, float]:
    """95 % group bootstrap of the mean of per-clip scores that are averaged over seeds."""
    names, units = np.unique(groups, return_inverse=True)
    sums = np.bincount(units, right)
    sizes = np.bincount(units)
    draws = np.random.default_rng(0).integers(len(names), size=(2000, len(names)))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
