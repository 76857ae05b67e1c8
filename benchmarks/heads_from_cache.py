"""Training a head from the cache, beside a plain ``DataLoader`` over ``.npy`` files.

    python benchmarks/heads_from_cache.py [--clips 9537] [--frames 16] [--channels 2048] \
        [--epochs 3] [--converge] [--lookup 13320 --clip VIDEO] [--folder DIR] [--out result.json]

Synthetic features with learnable classes are written as cache entries and as ``.npy`` files. Two
ways train the same LSTM head on them, epoch by epoch in turn, with the same batches of 64:

`vidfuse`     entries → one table, once → `Fit`; its start is reported apart
`plain`       `Dataset` with `np.load` per clip, `DataLoader` with a worker per core
`arithmetic`  the plain loop on float32 batches that lie ready: forward, backward, step

An epoch of `vidfuse` validates too, on a tenth of the clips; `arithmetic` has that added, `plain`
does without. With `--converge` each way trains until its training accuracy, with dropout, has
reached 99 % (at most 30 epochs). With `--lookup`, copies of VIDEO with changed content are made,
their entries too, and `vidfuse extract` runs over them twice: the second reads no video.

Times on a busy machine are noise; the ratios are of epochs that lay side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from vidfuse import api
from vidfuse.data.clip import Clip
from vidfuse.features.build import build_extractor
from vidfuse.features.cache import Entry, EntryInfo, Store, entry_key
from vidfuse.features.spec import FeatureConfig
from vidfuse.features.table import FeatureBuffer, Kind, build_table
from vidfuse.progress import Reporter
from vidfuse.training.config import TrainConfig
from vidfuse.training.fit import Epoch, Fit, new_head
from vidfuse.training.steps import new_fit

CLASSES = 101
BATCH = 64
GOAL = 0.99


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        report: dict[str, Any] = {"machine": machine(), "settings": vars(arguments)}
        report["training"] = training(arguments, Path(scratch))
        if arguments.lookup:
            report["lookup"] = lookup(arguments, Path(scratch))
    report["table"] = markdown(report)
    print(report["table"])
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("clips", 9537), ("frames", 16), ("channels", 2048), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--converge", action="store_true", help="then go on until it has learned")
    parser.add_argument("--lookup", type=int, default=0, help="clips of a finished extraction")
    parser.add_argument("--clip", help="a small video, which they are copies of")
    parser.add_argument("--folder", help="where files are made, and removed")
    parser.add_argument("--out", help="a file for the result, as JSON")
    arguments = parser.parse_args()
    if arguments.lookup and not arguments.clip:
        parser.error("--lookup needs --clip")
    return arguments


def training(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds per epoch of each way, taken in turn."""
    config = TrainConfig(
        frames=arguments.frames, batch_size=BATCH, epochs=arguments.epochs + 30, patience=0
    )
    held = arguments.clips // 10
    labels = torch.arange(arguments.clips + held) % CLASSES
    store = Store(scratch / "cache")
    keys = write_features(arguments, store, scratch / "npy", len(labels))

    start, fit = started(config, store, arguments, keys, labels, held)
    plain = PlainTraining(config, arguments, scratch / "npy", labels[: arguments.clips])
    ready = PlainTraining(config, arguments, None, labels[: arguments.clips])
    found: dict[str, list[float]] = {"vidfuse": [], "plain": [], "arithmetic": []}
    right: dict[str, float] = {}
    spent: dict[str, list[float]] = {name: [] for name in found}
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "vidfuse": fitted(iter(fit)),
        "plain": plain.epoch,
        "arithmetic": lambda: (ready.epoch()[0] + ready.validation(held), 0.0),
    }
    for _ in range(arguments.epochs):
        for name, way in ways.items():
            began = cpu_seconds()
            seconds, right[name] = way()
            found[name].append(seconds)
            spent[name].append(cpu_seconds() - began)
    medians = {name: statistics.median(each) for name, each in found.items()}
    result: dict[str, Any] = {
        "start": start,
        "seconds_per_epoch": found,
        "median": medians,
        "cpu_seconds_per_epoch": spent,
        "median_cpu": {name: statistics.median(each) for name, each in spent.items()},
        "vidfuse_of_arithmetic": ratio(found, "vidfuse", "arithmetic"),
        "plain_of_vidfuse": ratio(found, "plain", "vidfuse"),
    }
    if arguments.converge:
        sums = {name: sum(found[name]) for name in ("vidfuse", "plain")}
        counts = dict.fromkeys(sums, arguments.epochs)
        for name in sums:
            while right[name] < GOAL and counts[name] < arguments.epochs + 30:
                seconds, right[name] = ways[name]()
                sums[name] += seconds
                counts[name] += 1
        sums["vidfuse"] += start["seconds"]
        result["convergence"] = {"epochs": counts, "accuracy": right, "seconds": sums}
    return result


def write_features(
    arguments: argparse.Namespace, store: Store, folder: Path, count: int
) -> list[str]:
    """Entries and ``.npy`` files of the same features; returns the keys of the entries."""
    random = np.random.default_rng(0)
    size = (arguments.frames, arguments.channels)
    # A class is a direction that every frame leans to, beside noise that is larger.
    classes = 0.1 * random.standard_normal((CLASSES, *size), np.float32)
    spec = features_spec(arguments, store)
    folder.mkdir()
    keys = []
    for number in range(count):
        features = classes[number % CLASSES] + random.standard_normal(size, np.float32)
        features = np.maximum(features, 0).astype(np.float16)  # as ReLU leaves them
        keys.append(hashlib.sha256(str(number).encode()).hexdigest()[:32])
        store.write(spec, keys[-1], new_entry(features[:, :, None, None]))
        np.save(folder / f"{number}.npy", features)
    return keys


def new_entry(features: np.ndarray[Any, np.dtype[np.float16]]) -> Entry:
    frames = len(features)
    info = EntryInfo(0.0, float(frames), frames, 320, 240, "pyav", "fp32", "synthetic", [])
    return Entry(features, np.arange(frames, dtype=float), info)


def features_spec(arguments: argparse.Namespace, store: Store) -> Any:
    settings = {"backbone": "resnet50", "weights": "random", "frames": arguments.frames}
    config = FeatureConfig.from_mapping({**settings, "cache": str(store.root)})
    return build_extractor(config, 1, Reporter()).spec


def started(
    config: TrainConfig,
    store: Store,
    arguments: argparse.Namespace,
    keys: list[str],
    labels: torch.Tensor,
    held: int,
) -> tuple[dict[str, float], Fit]:
    """From entries to a fit that is ready to step, and what that took."""
    names = [f"class {number:03d}" for number in range(CLASSES)]
    clips = [Clip(Path(key), names[label]) for key, label in zip(keys, labels, strict=True)]
    spec = features_spec(arguments, store)
    before, cpu, began = peak_memory(), time.process_time(), time.perf_counter()
    pile = FeatureBuffer(len(clips), store.root)

    def entries() -> Iterator[tuple[Clip, Kind, Entry]]:
        for clip, key in zip(clips, keys, strict=True):
            entry = store.read(spec, key)
            assert entry is not None
            yield clip, "plain", entry

    table = build_table(entries(), config.rule, config.frames, pile)
    fit = new_fit(config, table, {"train": clips[:-held], "val": clips[-held:]}, names)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "features_gb": table.features.nbytes / 1e9,
        "peak_memory_gb": peak_memory() - before,
        "mapped": pile.mapped,
    }, fit


def fitted(epochs: Iterator[Epoch]) -> Callable[[], tuple[float, float]]:
    def go_on() -> tuple[float, float]:
        epoch = next(epochs)
        return epoch.seconds, epoch.train_accuracy

    return go_on


class NpyFiles(Dataset[tuple[torch.Tensor, int]]):
    """A dataset as people write it."""

    def __init__(self, folder: Path, labels: torch.Tensor) -> None:
        self.folder = folder
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        features = np.load(self.folder / f"{number}.npy")
        return torch.from_numpy(features).float(), self.labels[number]


class PlainTraining:
    """A training loop as people write it; or only its arithmetic, on a batch that is ready."""

    def __init__(
        self,
        config: TrainConfig,
        arguments: argparse.Namespace,
        folder: Path | None,
        labels: torch.Tensor,
    ) -> None:
        self.head = new_head(config, channels=arguments.channels, grid=1, classes=CLASSES)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), self.head.lr, fused=True)
        self.loader = None
        self.steps = -(-len(labels) // BATCH)
        self.ready = (torch.rand(BATCH, arguments.frames, arguments.channels), labels[:BATCH])
        if folder is not None:
            data = NpyFiles(folder, labels)
            self.loader = DataLoader(data, BATCH, shuffle=True, num_workers=os.cpu_count() or 1)

    def epoch(self) -> tuple[float, float]:
        """Its seconds, and the share of clips that were right when their step came."""
        began, hits, seen = time.perf_counter(), 0, 0
        self.head.train()
        for features, labels in self.loader or [self.ready] * self.steps:
            self.optimizer.zero_grad()
            logits = self.head(
                features[..., None, None], torch.full((len(labels),), features.shape[1])
            )
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), 5.0)
            self.optimizer.step()
            loss.item()
            hits, seen = hits + int((logits.argmax(1) == labels).sum()), seen + len(labels)
        return time.perf_counter() - began, hits / seen

    @torch.inference_mode()
    def validation(self, clips: int) -> float:
        """Seconds for the forward passes of so many clips."""
        began, (features, _) = time.perf_counter(), self.ready
        self.head.eval()
        for _ in range(-(-clips // BATCH)):
            self.head(features[..., None, None], torch.full((BATCH,), features.shape[1]))
        return time.perf_counter() - began


def lookup(arguments: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """How fast clips of a finished extraction are found, from scan to report."""
    cache, folder = scratch / "lookup", scratch / "clips"
    settings: dict[str, Any] = {"backbone": "resnet50", "weights": "random", "grid": "1"}
    settings["cache"] = str(cache)
    store = Store(cache)
    spec = build_extractor(FeatureConfig.from_mapping(settings), 1, Reporter()).spec
    small = new_entry(np.zeros((16, 8, 1, 1), np.float16))
    video = Path(arguments.clip)
    content = video.read_bytes()
    for number in range(arguments.lookup):
        path = folder / f"class{number % CLASSES:03d}" / f"{number}{video.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = content + number.to_bytes(4, "little")
        path.write_bytes(own)
        store.write(spec, entry_key(hashlib.sha256(own).hexdigest(), Clip(path)), small)
    report = {}
    for run in ("hashing", "finished"):
        cpu, began = time.process_time(), time.perf_counter()
        answer = api.extract(folder, **settings)
        assert answer.reused == arguments.lookup, answer
        report[f"{run}_clips_per_second"] = arguments.lookup / (time.perf_counter() - began)
        report[f"{run}_clips_per_cpu_second"] = arguments.lookup / (time.process_time() - cpu)
    return report


def ratio(found: dict[str, list[float]], one: str, other: str) -> float:
    """Median over epochs that lay side by side."""
    return statistics.median(a / b for a, b in zip(found[one], found[other], strict=True))


def peak_memory() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def cpu_seconds() -> float:
    """What this process, and those it waited for, have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": os.getloadavg(),
    }


def markdown(report: dict[str, Any]) -> str:
    found = report["training"]
    start, median = found["start"], found["median"]
    lines = [
        "| way | seconds per epoch | of arithmetic | seconds of CPU |",
        "|---|---|---|---|",
        *(
            f"| {name} | {seconds:.2f} | {seconds / median['arithmetic']:.2f} | "
            f"{found['median_cpu'][name]:.2f} |"
            for name, seconds in median.items()
        ),
        "",
        f"Start of `vidfuse`: {start['seconds']:.1f} s ({start['cpu_seconds']:.1f} s of CPU) for "
        f"{start['features_gb']:.2f} GB of features, {start['peak_memory_gb']:.2f} GB of memory.",
    ]
    if "convergence" in found:
        each = found["convergence"]
        lines += [
            f"Until {GOAL:.0%} are right in training, `{name}`: {each['seconds'][name]:.0f} s, "
            f"{each['epochs'][name]} epochs ({each['accuracy'][name]:.1%})."
            for name in ("vidfuse", "plain")
        ]
    if "lookup" in report:
        rates = report["lookup"]
        lines.append(
            f"A finished extraction: {rates['finished_clips_per_second']:.0f} clips/s "
            f"({rates['finished_clips_per_cpu_second']:.0f} per second of CPU)."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
