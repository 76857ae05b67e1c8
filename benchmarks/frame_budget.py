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
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import fold_of, write_manifest

from vidfuse import api
from vidfuse.data.clip import Clip
from vidfuse.data.layouts import read_dataset
from vidfuse.evaluation.frame_budget import FrameBudget, frame_budget
from vidfuse.features.config import FeatureConfig
from vidfuse.features.setup import Setup
from vidfuse.features.store import Entry
from vidfuse.features.table import FeatureTable
from vidfuse.fusion.choosing import ChoosingHead
from vidfuse.model import SEEN_DIGITS, Model
from vidfuse.progress import Progress
from vidfuse.timing import Timings

COUNTS = (1, 2, 4, 8)


def main() -> None:
    arguments = parse()
    data = read_dataset(arguments.dataset)
    clips = [clip for clip in data.clips if clip.label is not None]
    labels = np.array([data.classes.index(str(clip.label)) for clip in clips])
    groups = [clip.group or str(clip.path) for clip in clips]
    features = {
        name: getattr(arguments, name)
        for name in ("backbone", "weights", "layer", "grid", "cache")
        if getattr(arguments, name) is not None
    }
    budgets: list[tuple[int, FrameBudget]] = []
    trained: dict[str, dict[int, list[tuple[int, float]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            folds = fold_of(groups, labels, arguments.folds, seed)
            for fold in range(arguments.folds):
                manifest = write_manifest(Path(scratch), clips, groups, folds == fold)
                held = [clip for clip, number in zip(clips, folds, strict=True) if number == fold]

                def train(head: str, frames: int, **settings: Any) -> Model:
                    run = Path(scratch) / f"{head}-{frames}-{seed}-{fold}"  # noqa: B023
                    options = {"head": head, "frames": frames, "seed": seed, **features, **settings}  # noqa: B023
                    return api.load_model(api.train(manifest, out=str(run), **options)["model"])  # noqa: B023

                model = train("policy", arguments.frames, **arguments.set)
                tables = Tables(features, clips, held, arguments.validation)
                budgets.append(policy_budget(model, tables))
                for head in arguments.trained:
                    for count in COUNTS:
                        right = plain_accuracy(train(head, count), tables)
                        trained.setdefault(head, {}).setdefault(count, []).append(right)
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


class Tables:
    """Features of the clips to measure on, for any model of a fold."""

    def __init__(
        self, features: dict[str, str], clips: list[Clip], held: list[Clip], validation: bool
    ) -> None:
        self.features = features
        self.clips = clips
        self.held = held
        self.validation = validation

    def of(self, model: Model) -> tuple[FeatureTable, torch.Tensor]:
        """Cached features of the clips, and their classes."""
        config = FeatureConfig.from_mapping({**self.features, "frames": model.spec.frames})
        extractor = Setup(config, Timings(), Progress()).extractor(model.spec)
        wanted = self.clips if self.validation else self.held
        entries = {c: e for c, e in extractor.run(wanted) if isinstance(e, Entry)}
        if self.validation:
            seen, hashes = set(model.seen["val"]), extractor.tally.hashes
            entries = {c: e for c, e in entries.items() if hashes[c][:SEEN_DIGITS] in seen}
        labels = torch.tensor([model.classes.index(str(clip.label)) for clip in entries])
        return FeatureTable.stack(list(entries.values()), config.rule, config.frames), labels


def policy_budget(model: Model, tables: Tables) -> tuple[int, FrameBudget]:
    """Number of clips, and the curves on them."""
    assert isinstance(model.head, ChoosingHead)
    table, labels = tables.of(model)
    features, lengths = table.whole(torch.arange(len(labels)))
    return len(labels), frame_budget(model.head, features.float(), lengths, labels)


def plain_accuracy(model: Model, tables: Tables) -> tuple[int, float]:
    """Number of clips, and the accuracy of a head that reads all its frames."""
    table, labels = tables.of(model)
    with torch.inference_mode():
        features, lengths = table.whole(torch.arange(len(labels)))
        logits = model.head(features.float(), lengths)
    return len(labels), (logits.argmax(1) == labels).double().mean().item()


def report(
    arguments: argparse.Namespace,
    name: str,
    budgets: list[tuple[int, FrameBudget]],
    trained: dict[str, dict[int, list[tuple[int, float]]]],
) -> None:
    sizes = [size for size, _ in budgets]

    def averaged(points: list[dict[str, float]]) -> dict[str, float]:
        return {
            k: float(np.average([each[k] for each in points], weights=sizes)) for k in points[0]
        }

    most = int(max(budget.curves["policy"][0][-1] for _, budget in budgets))
    own = averaged([budget.to_dict()["own"] for _, budget in budgets])
    curve = [
        {"frames": float(frames), **averaged([budget.at(frames) for _, budget in budgets])}
        for frames in np.arange(1, most + 0.5, 0.5)
    ]
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
