"""Accuracy against frames of the head `policy`, beside rivals that look at as many.

    python benchmarks/frame_budget.py DATASET --folds 5 --seeds 3 --backbone resnet18 \
        [--layer layer3 --weights FILE] [--frames 32] [--set '{"head_options": {"cost": 0.02}}'] \
        [--trained lstm,mean] [--validation] [--out result.json]

Each outer fold holds out whole groups; the rest is split again by group into training and
validation, which alone chooses the epoch. Curves are those of the held-out clips, averaged over
folds (by clips) and seeds. `uniform`, `random` and `early_exit` use the policy's own weights; heads
named with `--trained` are trained anew on 1, 2, 4 and 8 uniform frames. With `--validation` the
curves are those of the validation clips: to choose settings by.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidfuse import api
from vidfuse.data.clip import Clip
from vidfuse.data.folds import make_folds
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import PARTS, Split
from vidfuse.features.build import build_extractor
from vidfuse.features.cache import Entry
from vidfuse.features.spec import FeatureConfig
from vidfuse.features.table import collate
from vidfuse.heads.policy import FrameSelectingHead
from vidfuse.inference.frame_budget import averaged, frame_budget
from vidfuse.model import Model
from vidfuse.progress import Reporter

COUNTS = (1, 2, 4, 8)


def main() -> None:
    arguments = parse()
    data = read_dataset(arguments.dataset)
    features = {
        name: getattr(arguments, name)
        for name in ("backbone", "weights", "layer", "grid", "cache")
        if getattr(arguments, name) is not None
    }
    budgets: list[tuple[int, dict[str, Any]]] = []
    trained: dict[str, dict[int, list[tuple[int, float]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            for fold, split in enumerate(make_folds(data, arguments.folds, seed=seed).splits):
                manifest = write_manifest(Path(scratch), split)
                measured = split.val if arguments.validation else split.test

                def train(head: str, frames: int, **settings: Any) -> Model:
                    run = Path(scratch) / f"{head}-{frames}-{seed}-{fold}"  # noqa: B023
                    options = {"head": head, "frames": frames, "seed": seed, **features, **settings}  # noqa: B023
                    options.setdefault("refit", not arguments.validation)  # it is measured on
                    return api.load_model(api.train(manifest, out=str(run), **options).model).model  # noqa: B023

                model = train("policy", arguments.frames, **arguments.set)
                budgets.append((len(measured), policy_budget(model, features, measured)))
                for head in arguments.trained:
                    for count in COUNTS:
                        right = plain_accuracy(train(head, count), features, measured)
                        point = len(measured), right
                        trained.setdefault(head, {}).setdefault(count, []).append(point)
                print(f"seed {seed} fold {fold} done", file=sys.stderr, flush=True)
    report(arguments, data.name, budgets, trained)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32, help="candidates of each clip")
    parser.add_argument("--trained", default=[], type=lambda text: text.split(","))
    parser.add_argument("--validation", action="store_true")
    for name in ("backbone", "weights", "layer", "grid", "cache", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--set", type=json.loads, default={}, help="settings of policy, as JSON")
    return parser.parse_args()


def write_manifest(folder: Path, split: Split) -> Path:
    """A manifest that declares a fold's split."""
    path = folder / "fold.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "group", "split"))
        for part in PARTS:
            for clip in getattr(split, part):
                writer.writerow((clip.path.resolve(), clip.label, clip.group or "", part))
    return path


def table_of(
    model: Model, features: dict[str, str], clips: list[Clip]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cached features of clips as a model reads them, their lengths, and their classes."""
    config = FeatureConfig.from_mapping({**features, "frames": model.spec.frames})
    extractor = replace(build_extractor(config, 1, Reporter()), spec=model.spec)
    entries = {c: e for c, e in extractor.run(clips) if isinstance(e, Entry)}
    labels = torch.tensor([model.classes.index(str(clip.label)) for clip in entries])
    most = max(len(entry.times) for entry in entries.values())
    frames, lengths = map(torch.from_numpy, collate(list(entries.values()), config.rule, most))
    return frames.float(), lengths, labels


def policy_budget(model: Model, features: dict[str, str], clips: list[Clip]) -> dict[str, Any]:
    """The curves on some clips."""
    assert isinstance(model.head, FrameSelectingHead)
    frames, lengths, labels = table_of(model, features, clips)
    return frame_budget(model.head, frames, lengths, labels).to_dict()


def plain_accuracy(model: Model, features: dict[str, str], clips: list[Clip]) -> float:
    """The accuracy of a head that reads all its frames."""
    frames, lengths, labels = table_of(model, features, clips)
    with torch.inference_mode():
        logits = model.head(frames, lengths)
    return float((logits.argmax(1) == labels).double().mean())


def report(
    arguments: argparse.Namespace,
    name: str,
    budgets: list[tuple[int, dict[str, Any]]],
    trained: dict[str, dict[int, list[tuple[int, float]]]],
) -> None:
    sizes = [size for size, _ in budgets]
    mean = averaged([budget for _, budget in budgets], sizes)
    own, curve = mean["own"], mean["curve"]
    for head, counts in trained.items():
        for count, results in counts.items():
            point = next((each for each in curve if each["frames"] == count), None)
            if point is not None:
                rights = [right for _, right in results]
                point[head] = float(np.average(rights, weights=[size for size, _ in results]))
    names = ["policy", "uniform", "random", "early_exit"]
    where = "validation clips" if arguments.validation else "held-out clips"
    print(f"{name}: {sum(sizes) // arguments.seeds} {where}, {arguments.folds} folds, "
          f"{arguments.seeds} seeds, {arguments.frames} candidates")  # fmt: skip
    print("frames  " + "".join(f"{each:>12}" for each in (*names, *trained)))
    for mark, point in [("own", own), *(("", each) for each in curve)]:
        cells = [f"{point[each]:.3f}" if each in point else "" for each in (*names, *trained)]
        print(f"{point['frames']:5.2f} {mark:3}" + "".join(f"{cell:>12}" for cell in cells))
    if arguments.out:
        result = {"dataset": name, "own": own, "curve": curve}
        Path(arguments.out).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
