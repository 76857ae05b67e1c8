"""Encoder × head on real UCF101, and what the order of frames is worth on real lips.

    python benchmarks/ucf101.py DATA --out FOLDER [--only PART …] [--jobs N] [--cache FOLDER]

DATA holds ``ucf101_12/`` (12 classes, groups g08 to g25), ``lipread/``, ``ut_interaction/``,
``fight_surv/`` and ResNet-18's ``weights/``. What was done stays in FOLDER, so that the same
command goes on where it was stopped. Each part leaves ``PART.md``:

default   The default head beside ``mean`` on five datasets, as ``train`` fits it, three seeds.
inputs    The default head and ``mean`` on EfficientNet-Lite0, six folds by group, one seed: frames
          as they are, larger ones, and random views of them. Both were chosen on g08 to g16.
heads     All heads on EfficientNet-Lite0, six folds by group, one seed; beside them folds that
          share groups, and a ridge regression on mean frames.
encoders  The six best of them × three seeds on other encoders that saw none of these clips.
bundled   All heads on the bundled encoders and on EfficientNet-Lite0, trained on groups g08 to g16
          and tested on g17 to g25: the second bundled encoder learned from frames of the former.
          One seed, of ``lstm`` and ``mean`` three.
auto      ``--head auto`` with EfficientNet-Lite0 and 1, six folds by group, chosen anew in each.
lipread   The heads that know an order, and ``mean``, five folds: in order, with shuffled frames in
          testing, and in training and testing.

Intervals are 95 % bootstraps of groups (of clips on ``lipread``, which has one speaker).

Needs ``pip install -e ".[bench,efficientnet]"``.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fusion_zoo import section, table
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vidfuse import api
from vidfuse.cli.console import ConsoleReporter
from vidfuse.data.folds import make_folds
from vidfuse.heads import HEADS, head_class
from vidfuse.progress import Reporter
from vidfuse.statistics import mean_interval, paired_sign_flip
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import TrainingData

LITE, LITE1, OLD, NEW = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "thin_resnet",
    "thin_efficientnet",
)
RESNET_WEIGHTS = "weights/resnet18_in1k_v1_to_layer3_bnfolded.pth"
FOLDS, LIP_FOLDS, SEEDS, BEST = 6, 5, 3, 6
SAMPLES = Path(__file__).parents[1] / "sample_data"
FIVE = {
    "ucf101_12": LITE,
    "ut_interaction": NEW,
    "fight_surv": NEW,
    "lipread": NEW,
    str(SAMPLES): NEW,
}
INPUTS: dict[str, dict[str, Any]] = {
    "224 px": {},
    "320 px": {"size": 320},
    "224 px, 4 random views, mirrored": {"mirror": True, "views": 4},
}
AS_TRAINED: dict[str, Any] = {
    "lrs": str(head_class(TrainConfig.head).lr),
    "dropouts": str(TrainConfig.dropout),
    "epochs": TrainConfig.epochs,
}
SEARCHED: dict[str, Any] = {"dropouts": str(TrainConfig.dropout), "epochs": 15}
"""Where many heads are compared: each chooses its learning rate. With 5, 15, 40 and 100 epochs
`lstm` has .710, .717, .713 and .713 on groups g08 to g16 (three folds, one seed), and .856, .870,
.870 and .875 on half of sample_data (two seeds)."""
ORDERLESS: dict[str, Any] = {**SEARCHED, "orders": False}
LAST_TRAINED_GROUP = 16
REPEATED = ("lstm", "mean")  # heads that get all seeds where others get one
BUDGET = 20  # minutes of each choice of --head auto
Right = NDArray[np.float64]


@dataclass(frozen=True)
class Bench:
    """The data, the folder of results, and the settings of computing.

    Attributes:
        data: Folder of the datasets.
        out: Folder of the results.
        settings: Settings of every command.
    """

    data: Path
    out: Path
    settings: dict[str, Any]

    @property
    def cache(self) -> dict[str, Any]:
        """The settings that all commands have, of which there is one."""
        return {name: value for name, value in self.settings.items() if name == "cache"}

    def write(self, part: str, text: str) -> None:
        """Print a part's tables, and keep them."""
        (self.out / f"{part}.md").write_text(text, encoding="utf-8")
        print(text, flush=True)

    def compare(self, part: str, dataset: str, **settings: Any) -> dict[str, Any]:
        """A comparison, which goes on where it was stopped."""
        given = {"out": str(self.out / part), "reporter": ConsoleReporter(), **self.settings}
        return api.compare(self.data / dataset, **given, **settings).to_dict()


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--cache")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    given = {"jobs": arguments.jobs, "cache": arguments.cache}
    settings = {name: value for name, value in given.items() if value is not None}
    bench = Bench(arguments.data.resolve(), arguments.out.resolve(), settings)
    for part in arguments.only:
        bench.write(part, PARTS[part](bench))


# The default


def default(bench: Bench) -> str:
    """The default head beside ``mean``, with the settings that both have by default."""
    parts = []
    for dataset, encoder in FIVE.items():
        name = Path(dataset).name
        found = bench.compare(
            f"default-{name}",
            dataset,
            heads=f"{TrainConfig.head},mean",
            backbone=encoder,
            seeds=SEEDS,
            **AS_TRAINED,
        )
        parts.append(section(f"{name}, {encoder}", found))
    return "\n".join(parts)


# Six folds by group


def inputs(bench: Bench) -> str:
    """The default head beside ``mean`` and a ridge regression, on several kinds of frames."""
    parts = []
    for name, settings in INPUTS.items():
        found = bench.compare(
            "inputs",
            "ucf101_12",
            heads=f"{TrainConfig.head},mean",
            backbone=LITE,
            folds=FOLDS,
            seeds=1,
            **AS_TRAINED,
            **settings,
        )
        parts.append(section(f"ucf101_12, six folds by group, {name}", found))
        if "views" not in settings:
            parts.append(ridge_line(bench, **settings))
    return "\n".join(parts)


def heads(bench: Bench) -> str:
    """All heads on EfficientNet-Lite0."""
    settings = {"backbone": LITE, "folds": FOLDS, "seeds": 1, **ORDERLESS}
    by_group = bench.compare("heads", "ucf101_12", **settings)
    shared = bench.compare("shared", "ucf101_12", heads="mean,lstm", split="random", **settings)
    lines = [section("ucf101_12, six folds by group", by_group)]
    lines += [section("The same, clips of a group on both sides", shared)]
    return "\n".join([*lines, ridge_line(bench)])


def ridge_line(bench: Bench, **settings: Any) -> str:
    """The accuracy of a ridge regression, as text."""
    right, groups = ridge(bench, **settings)
    return "Ridge regression on mean frames, six folds by group: " + share(right, groups) + "\n"


def ridge(bench: Bench, **settings: Any) -> tuple[Right, list[str | None]]:
    """The hits [N] of a ridge regression on EfficientNet-Lite0's mean frames: 1 or 0 for a clip."""
    config = TrainConfig(head="mean", backbone=LITE, **bench.cache, **settings)
    data = TrainingData(bench.data / "ucf101_12", config, Reporter())
    folds = make_folds(data.data, FOLDS, split="group", seed=0, contents=data.contents)
    found = data.gather(folds.clips)
    clips = [clip for clip in folds.clips if clip in found.rows]
    rows = [found.rows[clip] for clip in clips]
    frames = found.firsts[rows, None] + found.chosen[rows]
    vectors = found.features[frames].astype(np.float32).mean((1, 3, 4))
    labels = np.array([str(clip.label) for clip in clips])
    right = np.zeros(len(clips))
    for split in folds.splits:
        held = set(split.test)
        test = np.array([clip in held for clip in clips])
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 5, 11)))
        model.fit(vectors[~test], labels[~test])
        right[test] = model.predict(vectors[test]) == labels[test]
    return right, [clip.group for clip in clips]


def encoders(bench: Bench) -> str:
    """The best heads on the encoders that saw none of these clips."""
    first = bench.compare("heads", "ucf101_12", backbone=LITE, folds=FOLDS, seeds=1, **ORDERLESS)
    best = first["heads"][:BEST]
    settings = {"heads": ",".join(row["name"] for row in best), "folds": FOLDS, "seeds": SEEDS}
    settings |= ORDERLESS
    several = bench.compare("encoders", "ucf101_12", backbones=[OLD, LITE1], **settings)
    resnet = bench.compare(
        "resnet",
        "ucf101_12",
        backbone="resnet18",
        layer="layer3",
        weights=str(bench.data / RESNET_WEIGHTS),
        **settings,
    )
    columns = {f"{LITE}, 1 seed": best}
    columns |= {name: [row for row in several["heads"] if row["backbone"] == name]
                for name in (OLD, LITE1)}  # fmt: skip
    columns["resnet18, layer3"] = resnet["heads"]
    cells = {(row["name"], each): interval(row) for each in columns for row in columns[each]}
    body = [(f"`{row['name']}`", *(cells[row["name"], each] for each in columns)) for row in best]
    title = f"## Encoder × head, six folds by group × {SEEDS} seeds"
    return "\n".join([title, "", *table(("head", *columns), body), ""])


def auto(bench: Bench) -> str:
    """The choice of each fold, and its accuracy on that fold."""
    folder, kept = bench.out / "auto", bench.out / "auto.json"
    if not kept.exists():
        reporter = ConsoleReporter()
        if (folder / "auto.json").exists():  # it was cut off
            done = api.train(resume=folder, reporter=reporter)
        else:
            done = api.train(
                bench.data / "ucf101_12",
                folds=FOLDS,
                budget=f"{BUDGET * (FOLDS + 1)}m",  # of all choices: the model at the end has one
                head="auto",
                backbone=f"{LITE},{LITE1}",
                split="group",
                out=str(folder),
                reporter=reporter,
                **bench.cache,
            )
        kept.write_text(json.dumps(done.to_dict()), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    low, high = found["accuracy_interval"]
    chosen = [(each["head"], str(each["grid"]), each["backbone"]) for each in found["choices"]]
    title = f"## --head auto, {BUDGET} minutes in each of six folds by group"
    accuracy = f"Accuracy {percent(found['accuracy'], low, high)}"
    table_of = table(("head", "grid", "encoder"), chosen)
    return "\n".join([title, "", accuracy, "", *table_of, ""])


# Groups g08 to g16 against g17 to g25


def bundled(bench: Bench) -> str:
    """Heads trained on groups that the second bundled encoder saw, tested on others."""
    manifest = bench.out / "g17.csv"
    tested = write_manifest(bench.data, manifest)
    groups: list[str | None] = [group for _, _, group in tested]
    names = [name for name in HEADS if not head_class(name).requires]
    right: dict[tuple[str, str], Right] = {}
    for encoder in (OLD, NEW, LITE):
        for head in names:
            seeds = range(SEEDS if head in REPEATED else 1)
            each = [clips_right(bench, manifest, tested, encoder, head, seed) for seed in seeds]
            right[head, encoder] = np.mean(each, 0)
    rows = [(f"`{head}`", *(share(right[head, each], groups) for each in (OLD, NEW, LITE)))
            for head in names]  # fmt: skip
    lines = ["## Trained on g08 to g16, tested on g17 to g25", ""]
    lines += [*table(("head", OLD, NEW, LITE), rows), ""]
    for head in REPEATED:
        new, old = right[head, NEW], right[head, OLD]
        low, high = mean_interval(new - old, groups) or (np.nan, np.nan)
        p_value = paired_sign_flip(new, old, groups)
        gain = percent(float((new - old).mean()), low, high)
        lines += [f"`{head}`, {NEW} minus {OLD}: {gain}, p = {p_value:.4f}", ""]
    return "\n".join(lines)


def write_manifest(data: Path, manifest: Path) -> list[tuple[Path, str, str]]:
    """Write which clips are trained and tested on; path, class and group of the latter."""
    tested = []
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "group", "split"))
        for path in sorted((data / "ucf101_12" / "UCF-101").rglob("*.avi")):
            match = re.search(r"_g(\d+)_c\d+", path.stem)
            assert match, path
            part = "train" if int(match[1]) <= LAST_TRAINED_GROUP else "test"
            rows.writerow((path, path.parent.name, f"g{match[1]}", part))
            if part == "test":
                tested.append((path, path.parent.name, f"g{match[1]}"))
    return tested


def clips_right(
    bench: Bench,
    manifest: Path,
    tested: Sequence[tuple[Path, str, str]],
    encoder: str,
    head: str,
    seed: int,
) -> Right:
    """The hits [N] of a model on the tested clips, trained unless that was done before."""
    run = bench.out / "bundled" / f"{encoder}-{head}-{seed}"
    kept = run / "right.json"
    if not kept.exists():
        if (run / "state.pt").exists():  # it was cut off
            api.train(resume=run, reporter=ConsoleReporter())
        elif not (run / "model.safetensors").exists():
            settings: dict[str, Any] = {"backbone": encoder, "head": head, "seed": seed}
            settings |= bench.cache
            api.train(manifest, reporter=ConsoleReporter(), out=str(run), **settings)
        records = api.predict([path for path, _, _ in tested], model=run, **bench.cache)
        answers = [record.label for record in records]
        right = [answer == label for answer, (_, label, _) in zip(answers, tested, strict=True)]
        kept.write_text(json.dumps(right), encoding="utf-8")
    return np.array(json.loads(kept.read_text(encoding="utf-8")), float)


# Lips


def lipread(bench: Bench) -> str:
    """Heads that know an order, on clips where it matters."""
    names = [name for name in HEADS
             if not head_class(name).requires and head_class(name).order_aware]  # fmt: skip
    settings = {"heads": ",".join([*names, "mean"]), "folds": LIP_FOLDS, "seeds": 1, **SEARCHED}
    found = bench.compare("lipread", "lipread", backbone=NEW, **settings)
    return section(f"lipread, {NEW}", found)


# Words


def share(right: Right, groups: Sequence[str | None]) -> str:
    """The share of clips that are right, in per cent, with its interval."""
    low, high = mean_interval(right, groups) or (np.nan, np.nan)
    return percent(float(right.mean()), low, high)


def interval(row: dict[str, Any]) -> str:
    """The accuracy of a row of a comparison."""
    low, high = row["accuracy_interval"] or (row["accuracy"],) * 2
    return percent(row["accuracy"], low, high)


def percent(value: float, low: float, high: float) -> str:
    """A number and its interval, in per cent."""
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


PARTS: dict[str, Callable[[Bench], str]] = {
    "default": default, "inputs": inputs, "heads": heads, "encoders": encoders, "bundled": bundled,
    "auto": auto, "lipread": lipread,
}  # fmt: skip

if __name__ == "__main__":
    main()
