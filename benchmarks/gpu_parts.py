"""The parts of `gpu.py`, each run by it in a process of its own.

    python benchmarks/gpu_parts.py PART --work FOLDER [--device cuda] [--seconds 60] [--short]

FOLDER has the clips, under `clips`. A part prints what it has found as a line of JSON, again and
again as it finds more, so that the last line is what is left of one that is cut off. It begins no
further round that would not end in time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from speed import CLIPS, FRAMES, SIZES, machine, script

import vidfuse
from vidfuse.backbones import FP32
from vidfuse.doctor import examine
from vidfuse.doctor.decoders import decoder
from vidfuse.doctor.probe import probe
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import build_extractor
from vidfuse.features.cache import Store
from vidfuse.features.spec import FeatureConfig
from vidfuse.machine import cores
from vidfuse.progress import Reporter
from vidfuse.video.backends import BACKENDS, installed
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool

if TYPE_CHECKING:
    import torch

    from vidfuse.backbones.engine import TorchEngine

ROOT = Path(__file__).resolve().parents[1]
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet50": {"backbone": "resnet50", "weights": "random"},
    "thin_resnet": {"backbone": "thin_resnet"},
}
# Those of the CPU are for a test of this script where there is no GPU.
DECODERS = {"cuda": ("torchcodec-cuda", "decord-gpu"), "cpu": ("torchcodec", "decord")}
DECODE_PROCESSES = 8  # at most: each has a CUDA context of its own
LONGEST_DECODE = 20.0  # seconds of a clip
MOST_ROUNDS = 7
PEER_CLIPS = 32
SPARE = 0.1  # of the time of a part, which its last round may take longer than those before
UCF101_LIKE = {"clips": 4000, "frames": FRAMES, "channels": 2048}
SHORT = {"clips": 202, "frames": 4, "channels": 8}
Report = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Settings of a part, and its deadline.

    Attributes:
        device: Where networks run.
        end: When it is to be done, by `time.monotonic`.
        seconds: How long it may take in all.
        work: Folder with the clips, for files of its own.
        short: Whether as little as possible is measured.
    """

    device: str
    end: float
    seconds: float
    work: Path
    short: bool

    @property
    def clips(self) -> list[Path]:
        """Copies of the clips; the first ``CLIPS`` are of different ones, if there are as many."""
        return sorted((self.work / "clips").iterdir())

    def rounds(self, measure: Callable[[], Report]) -> Iterator[list[Report]]:
        """All rounds so far, after each of them: one at least, and as many as fit into the time."""
        found: list[Report] = []
        longest = 0.0
        most = 1 if self.short else MOST_ROUNDS
        while not found or (len(found) < most and time.monotonic() + longest < self.end):
            began = time.monotonic()
            found.append(measure())
            longest = max(longest, time.monotonic() - began)
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    end = time.monotonic() + (1 - SPARE) * seconds
    part = Part(arguments.device, end, seconds, arguments.work, arguments.short)
    found: Report = {}
    try:
        for found in PARTS[arguments.part](part):
            print(json.dumps(found), flush=True)
    except (Exception, SystemExit) as error:
        print(json.dumps({**found, "error": f"{type(error).__name__}: {error}"}), flush=True)
        raise


def about_machine(part: Part) -> Iterator[Report]:
    """The GPU, its driver, versions, and what `vidfuse doctor` says."""
    import torch

    from vidfuse.backbones.precision import processor

    device = torch.device(part.device)
    found: Report = {**machine(), "cores": cores(), "cuda": torch.version.cuda}
    found["processor"] = processor(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["cudnn"] = torch.backends.cudnn.version()
        found["gpu_bytes"] = properties.total_memory
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["driver"] = driver()
        found["beside"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    yield found
    checks = {check.name: f"{check.status}: {check.summary}" for check in examine()}
    yield {**found, "doctor": checks}


def driver() -> str:
    """Version of NVIDIA's driver."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return done.stdout.split("\n")[0].strip()


def marked_tests(part: Part) -> Iterator[Report]:
    """Run the tests that are marked `gpu`; their files alone are collected.

    Raises:
        RuntimeError: Some failed.
    """
    files = [str(file) for file in (ROOT / "tests").rglob("test_*.py") if is_marked(file)]
    files = files[:1] if part.short else files
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-ra", "--color=no"]
    words += ["-p", "no:cacheprovider", *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]]
    counts = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", lines[-1])}
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    yield {"counts": counts, "failed": failed, "skipped": skipped}
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: {lines[-1]}")


def is_marked(file: Path) -> bool:
    return "mark.gpu" in file.read_text("utf-8")


def extraction(network: str, part: Part) -> Iterator[Report]:
    """`vidfuse bench`, `vidfuse.extract` of the copies and a plain script, in turns."""
    options = {**NETWORKS[network], "device": part.device, "frames": FRAMES}
    measure = partial(extraction_round, network, options, part)
    for rounds in part.rounds(measure):
        ratios = [
            {
                **each,
                "pipeline_of_slower": each["pipeline"] / slower(each),
                "extract_of_slower": each["extract"] / slower(each),
                "extract_of_peer": each["extract"] / each["peer"],
            }
            for each in rounds
        ]
        numbers = [name for name, value in ratios[0].items() if isinstance(value, float | int)]
        median = {name: statistics.median(each[name] for each in ratios) for name in numbers}
        median["precision"] = rounds[0]["precision"]
        yield {"median": {**median, "count": len(rounds)}, "rounds": ratios}


def slower(found: Report) -> float:
    return float(min(found["decode_only"], found["forward_only"]))


def extraction_round(network: str, options: dict[str, Any], part: Part) -> Report:
    import torch

    seconds = 0.2 if part.short else min(5.0, part.seconds / 40)
    measured = vidfuse.bench(part.clips[:CLIPS], repeats=1, seconds=seconds, **options)
    # Of a few clips `extract` would take fp32 and not what bench has chosen.
    options = {**options, "precision": measured.precision}
    count = max(2 if part.short else CLIPS, int(measured.pipeline * part.seconds / 8))
    clips = part.clips[:count]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(dir=part.work) as cache:
        began = time.perf_counter()
        done = vidfuse.extract(clips, cache=cache, **options)
        took = time.perf_counter() - began
    if done.failures:
        raise RuntimeError(f"{done.failed} of {len(clips)} clips failed: {done.failures[0]}")
    peer_clips = part.clips[: 2 if part.short else PEER_CLIPS]
    plain = ["--network", network, "--size", SIZES[network], "--frames", FRAMES]
    plain += ["--device", part.device, "--reader", "decord" if installed("decord") else "opencv"]
    peer = json.loads(script("peer.py", *peer_clips, *plain))
    names = ("decode_only", "forward_only", "forward_fp32", "pipeline", "precision", "reason")
    return {
        **{name: getattr(measured, name) for name in names},
        "extract": done.computed / took,
        "clips": done.computed,
        "timings": done.timings,
        "peer": peer["clips_per_second"],
        "decode_processes": measured.decode_processes,
        "gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None,
    }


def precision(part: Part) -> Iterator[Report]:
    """Agreement of features in each precision with those in fp32 without TF32, and their speed."""
    found: Report = {}
    for network, options in NETWORKS.items():
        config = FeatureConfig.from_mapping({**options, "device": part.device})
        extractor = build_extractor(config, 1, Reporter())
        extractor.store = Store(part.work / "unused")
        pixels = decoded_frames(part, extractor.spec.size)
        found[network] = agreement(extractor.encoder.engine, pixels, part)
        yield found


def decoded_frames(part: Part, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames of the clips, ``uint8 [N, S, S, 3]``."""
    count = 2 if part.short else FRAMES
    clips = part.clips[: 1 if part.short else CLIPS]
    requests = [FrameRequest(str(clip), "uniform", count, size=size) for clip in clips]
    with DecodePool() as pool:
        answers = [frames for _, frames in pool.map(requests)]
    return np.concatenate([each.pixels for each in answers if isinstance(each, Frames)])


def agreement(engine: TorchEngine, pixels: np.ndarray[Any, Any], part: Part) -> Report:
    """Cosines of features [N, D·2·2] with those in exact fp32, and frames per second in turns."""
    import torch

    found: dict[str, torch.Tensor] = {}
    rates: dict[str, list[float]] = {}

    def compute(name: str, precision: str) -> None:
        began = time.perf_counter()
        (features,) = engine.features([pixels], precision, [2])
        rates.setdefault(name, []).append(len(pixels) / (time.perf_counter() - began))
        found[name] = torch.from_numpy(features).double().flatten(1)

    names = [FP32, "bf16", "fp16"]
    rounds = 1 + (1 if part.short else 5)  # the first one warms up
    for _ in range(rounds):
        for name in names:
            compute(name, name)
    # Convolutions in fp32 use TF32 on a GPU that has it, unless torch is told otherwise.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for _ in range(rounds):
            compute("exact fp32", FP32)
    exact = found["exact fp32"]
    with torch.inference_mode():
        some = torch.from_numpy(pixels[:8]).to(engine.device)
        maps = {name: engine.selector.network(name)(some) for name in names}
    cosines = {name: torch.cosine_similarity(exact, each) for name, each in found.items()}
    return {
        "frames": len(pixels),
        "other_frames": torch.cosine_similarity(exact, exact.roll(1, 0)).median().item(),
        "precisions": {
            name: {
                "least": each.min().item(),
                "median": each.median().item(),
                "finite": name not in maps or bool(maps[name].isfinite().all()),
                "frames_per_second": statistics.median(rates[name][1:]),
            }
            for name, each in cosines.items()
        },
    }


def decoders(part: Part) -> Iterator[Report]:
    """Decoders beside PyAV on the same clips, in turns; why others are left out."""
    names, skipped = ["pyav"], {}
    for name in DECODERS["cpu" if part.device == "cpu" else "cuda"]:
        check = decoder(name, probe(BACKENDS[name].module))
        if check.values["found"] and check.status == "ok":
            names.append(name)
        else:
            skipped[name] = check.summary
    yield {"skipped": skipped}
    clips = part.clips[: 2 if part.short else CLIPS]
    requests = [FrameRequest(str(clip), "uniform", FRAMES, size=224) for clip in clips]
    with ExitStack() as stack:
        workers = min(cores(), DECODE_PROCESSES)
        pools, answers = {}, {}
        for name in names:
            pool = stack.enter_context(DecodePool(name, workers, LONGEST_DECODE))
            try:
                answers[name] = answers_of(pool, requests)
                pools[name] = pool
            except UserError as error:
                skipped[name] = error.message
        rows = {name: compared(found, answers["pyav"]) for name, found in answers.items()}
        for row in rows.values():
            row["refused"] = len(clips) - row["clips"]
        yield {"skipped": skipped, "decoders": rows}
        able = [each for each in requests if all(each.path in found for found in answers.values())]
        if not able:
            raise RuntimeError("no clip is read by all of them")
        seconds = 0.2 if part.short else part.seconds / 40
        many = {
            name: list(islice(cycle(able), max(4, int(rate(pool, able) * seconds))))
            for name, pool in pools.items()
        }

        def measure() -> Report:
            return {name: rate(pool, many[name]) for name, pool in pools.items()}

        for rounds in part.rounds(measure):
            for name, row in rows.items():
                row["clips_per_second"] = statistics.median(each[name] for each in rounds)
                row["of_pyav"] = statistics.median(each[name] / each["pyav"] for each in rounds)
            yield {"skipped": skipped, "workers": workers, "decoders": rows, "rounds": rounds}


def answers_of(pool: DecodePool, requests: list[FrameRequest]) -> dict[str, Frames]:
    """Frames of the clips that a decoder reads; it has started its processes then."""
    found = {}
    for request, frames in pool.map(requests):
        if isinstance(frames, InputError):
            print(frames.message, file=sys.stderr)
        else:
            found[request.path] = frames
    return found


def compared(found: dict[str, Frames], expected: dict[str, Frames]) -> Report:
    """Counts of the clips that a decoder reads, also on the CPU, and the largest difference."""
    both = [(frames, expected[path]) for path, frames in found.items() if path in expected]
    return {
        "clips": len(found),
        "on_cpu": sum("on the CPU" in " ".join(each.warnings) for each in found.values()),
        "difference": max((difference(*pair) for pair in both), default=None),
    }


def difference(one: Frames, other: Frames) -> float:
    """Mean difference of the worst frame, of 255."""
    if one.pixels.shape != other.pixels.shape:
        return 255.0
    return float(np.abs(one.pixels.astype(np.int16) - other.pixels).mean((1, 2, 3)).max())


def rate(pool: DecodePool, requests: list[FrameRequest]) -> float:
    """Clips per second."""
    began = time.perf_counter()
    count = sum(1 for _ in pool.map(requests))
    return count / (time.perf_counter() - began)


def training(part: Part) -> Iterator[Report]:
    """Epochs of the same LSTM from the same cache, in each precision in turns."""
    import torch
    from heads_from_cache import BATCH, CLASSES, started, write_features

    from vidfuse.backbones.precision import DTYPES, supported
    from vidfuse.training.config import TrainConfig

    sizes = argparse.Namespace(**(SHORT if part.short else UCF101_LIKE))
    held = sizes.clips // 10
    labels = torch.arange(sizes.clips + held) % CLASSES
    store = Store(part.work / "features")
    keys = write_features(sizes, store, part.work / "npy", len(labels))
    config = TrainConfig(
        frames=sizes.frames, batch_size=BATCH, epochs=100, patience=0, device=part.device
    )
    fits, chosen = {}, FP32
    for name in (FP32, *supported(torch.device(part.device))):
        start, fit = started(config, store, sizes, keys, labels, held)
        chosen = next((each for each in DTYPES if DTYPES[each] is fit.half), FP32)
        fit.half = None if name == FP32 else DTYPES[name]
        fit.scaler = torch.amp.GradScaler(
            fit.device.type, init_scale=2.0**10, enabled=fit.half is torch.float16
        )
        fits[name] = iter(fit)

    def measure() -> Report:
        return {name: asdict(next(fit)) for name, fit in fits.items()}

    measure()  # warms up
    for rounds in part.rounds(measure):
        ways = {
            name: {
                "seconds": statistics.median(each[name]["seconds"] for each in rounds),
                "of_fp32": statistics.median(
                    each[name]["seconds"] / each[FP32]["seconds"] for each in rounds
                ),
                "val_accuracy": rounds[-1][name]["val_accuracy"],
            }
            for name in fits
        }
        yield {
            "sizes": vars(sizes),
            "epochs": 1 + len(rounds),
            "chosen": chosen,
            "start": start,
            "ways": ways,
            "rounds": rounds,
        }


PARTS: dict[str, Callable[[Part], Iterator[Report]]] = {
    "machine": about_machine,
    "tests": marked_tests,
    "resnet50": partial(extraction, "resnet50"),
    "thin_resnet": partial(extraction, "thin_resnet"),
    "precision": precision,
    "decoders": decoders,
    "training": training,
}


if __name__ == "__main__":
    main()
