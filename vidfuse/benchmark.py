"""Benchmark of feature extraction on one's own clips, and its bottleneck."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vidfuse.backbones import FP32, Grid
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import build_extractor
from vidfuse.features.cache import Store
from vidfuse.features.encode import Encoder, Job
from vidfuse.features.extract import Extractor
from vidfuse.features.spec import FeatureConfig
from vidfuse.progress import Reporter
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool

if TYPE_CHECKING:
    from torch import device as Device

    from vidfuse.backbones.load import Backbone

DISTINCT = 64  # clips whose frames are held for the forward pass alone
TRIED = 8  # clips for each decode process, of which a first round says how long one takes
SIDE = 4096  # of the matrices multiplied on a GPU; half of it on a CPU
UNSTEADY = 0.2  # difference of rounds that is told
Rounds = dict[str, list[float]]


def bench(
    clips: Sequence[Clip],
    config: FeatureConfig,
    grid: Grid,
    repeats: int,
    seconds: float,
    reporter: Reporter,
) -> dict[str, Any]:
    """Measure decoding alone, the forward pass alone, and the pipeline, in turns.

    All use all cores, the same clips and one set of decode processes, which are warm. The pipeline
    writes to a cache that is thrown away.

    Args:
        clips: What to measure with; ``DISTINCT`` of them at most, again and again if need be.
        config: The settings of the extraction.
        grid: Side of the features' grid.
        repeats: Rounds; the medians are reported.
        seconds: What the pipeline takes in a round, about, and decoding, too; the forward pass
            takes as many clips as the pipeline.
        reporter: Receives progress updates and collects the time of each stage.

    Returns:
        Clips per second and how they compare; see docs/scripting.md.

    Raises:
        UserError: No clip can be read, or the settings cannot be used here.
    """
    from vidfuse.backbones.precision import processor

    extractor = build_extractor(config, grid, reporter)
    encoder = extractor.encoder
    with (
        tempfile.TemporaryDirectory(prefix="vidfuse-bench-") as folder,
        DecodePool(
            config.decoder, config.workers, config.time_limit, memory=config.memory_bytes
        ) as pool,
    ):
        extractor.store, extractor.pool = Store(Path(folder)), pool
        requests = [extractor.request(clip) for clip in clips[:DISTINCT]]
        decoded = _readable(pool, requests, reporter)
        work = BenchRunner(extractor, pool, decoded)
        work.warm_up(seconds)
        rounds: Rounds = {}
        reporter.start("Measuring", repeats)
        try:
            for _ in range(repeats):
                for name, measure in work.parts().items():
                    rounds.setdefault(name, []).append(measure())
                reporter.advance()
        finally:
            reporter.finish()
    unsteady = max(max(values) / min(values) for values in rounds.values()) - 1
    if unsteady > UNSTEADY:
        reporter.warn(
            f"rounds differ by up to {unsteady:.0%}: where other programs use this machine, shares "
            "of limits mean little"
        )
    choice, device = encoder.choice, encoder.engine.device
    assert choice is not None
    pixels = sum(len(frames.pixels) for _, frames in decoded) / len(decoded)
    flops = pixels * flops_of_frame(encoder.engine.backbone, extractor.spec.size)
    return {
        **_compared({name: median(values) for name, values in rounds.items()}, device, flops),
        "precision": choice.precision,
        "reason": choice.reason,
        "device": str(device),
        "processor": processor(device),
        "decode_processes": pool.workers,
        "streams": encoder.engine.streams,
        "batch": encoder.engine.batch,
        "clips": work.count,
        "distinct_clips": len(decoded),
        "failed": len(requests) - len(decoded),
        "frames_per_clip": pixels,
        "rounds": {name: [round(value, 3) for value in each] for name, each in rounds.items()},
        "spec": extractor.spec.to_dict(),
    }


class BenchRunner:
    """The parts of a round.

    Args:
        extractor: Its cache is written to.
        pool: Reads the clips.
        decoded: Clips with their frames.

    Attributes:
        count: How many clips the pipeline and the forward pass take in a round, so that it lasts.
        reads: The same for decoding: of few clips much of the time is that of the last ones, when
            not all decode processes have one.
    """

    def __init__(
        self, extractor: Extractor, pool: DecodePool, decoded: list[tuple[FrameRequest, Frames]]
    ) -> None:
        self.extractor = extractor
        self.encoder = extractor.encoder
        self.pool = pool
        self.decoded = decoded
        self.count = self.reads = TRIED * pool.workers

    def warm_up(self, seconds: float) -> None:
        """Choose the numerical mode, and how many clips are taken in so many seconds."""
        self.pipeline()
        self.count = max(TRIED, round(seconds * self.pipeline()))
        self.reads = max(self.reads, round(seconds * self.decode()))

    @cached_property
    def fp32(self) -> Encoder:
        """The backbone in fp32, whatever the mode that was chosen."""
        from vidfuse.backbones.engine import TorchEngine

        engine = TorchEngine(self.encoder.engine.backbone, FP32)
        return Encoder(lambda: engine)

    def parts(self) -> dict[str, Callable[[], float]]:
        """The parts that are measured in turns."""
        parts = {
            "decode_only": self.decode,
            "forward_only": lambda: self.forward(self.encoder),
            "pipeline": self.pipeline,
            "gemm_flops": lambda: gemm(self.encoder.engine.device),
        }
        if self.encoder.choice and self.encoder.choice.precision != FP32:
            parts["forward_fp32"] = lambda: self.forward(self.fp32)
        return parts

    def decode(self) -> float:
        """Clips per second of the decode processes alone."""
        requests = [request for request, _ in self._clips(self.reads)]
        return self._rate(lambda: sum(1 for _ in self.pool.map(requests)))

    def forward(self, encoder: Encoder) -> float:
        """Clips per second of a backbone alone."""
        clips = self._clips(self.count)
        jobs = [self._job("", request, frames) for request, frames in clips]
        count = sum(len(frames.times) for _, frames in clips)
        encoding = encoder.begin([self.extractor.spec.grid], count, many=True)

        def encode() -> int:
            return sum([len(encoding.add(job)) for job in jobs]) + len(encoding.flush())

        rate = self._rate(encode)
        encoding.end()
        return rate

    def pipeline(self) -> float:
        """Clips per second of an extraction."""
        jobs = deque(
            self._job(f"{number:032x}", request)
            for number, (request, _) in enumerate(self._clips(self.count))
        )
        return self._rate(lambda: sum(1 for _ in self.extractor.compute(jobs, many=True)))

    def _job(self, key: str, request: FrameRequest, frames: Frames | None = None) -> Job:
        spec = self.extractor.spec
        return Job([], key, request, frames=frames, window=spec.window, steps=spec.steps)

    def _clips(self, count: int) -> list[tuple[FrameRequest, Frames]]:
        return list(islice(cycle(self.decoded), count))

    def _rate(self, work: Callable[[], int]) -> float:
        began = time.perf_counter()
        done = work()
        return done / (time.perf_counter() - began)


def _readable(
    pool: DecodePool, requests: Sequence[FrameRequest], reporter: Reporter
) -> list[tuple[FrameRequest, Frames]]:
    """Clips that can be read, with their frames; of the others, a warning."""
    found = []
    for request, frames in pool.map(requests):
        if isinstance(frames, InputError):
            reporter.warn(frames.message)
        else:
            found.append((request, frames))
    if not found:
        raise UserError("none of these clips can be read")
    return found


def _compared(rate: dict[str, float], device: Device, flops: float) -> dict[str, float]:
    """Rates, the limit that they set, and the shares of limits that are reached.

    Args:
        rate: Clips per second by part; FLOP/s of ``gemm_flops``.
        device: Where the backbone runs: decoding shares a CPU's cores with it, and no GPU's.
        flops: Of a clip's forward pass.
    """
    decode, forward = rate["decode_only"], rate["forward_only"]
    limit = 1 / (1 / decode + 1 / forward) if device.type == "cpu" else min(decode, forward)
    in_fp32 = rate.get("forward_fp32", forward)
    return {
        "decode_only": decode,
        "forward_only": forward,
        "pipeline": rate["pipeline"],
        "limit": limit,
        "fraction_of_limit": rate["pipeline"] / limit,
        "forward_fp32": in_fp32,
        "gemm_fraction": in_fp32 * flops / rate["gemm_flops"],
        "gemm_gflops": rate["gemm_flops"] / 1e9,
        "gflop_per_clip": flops / 1e9,
    }


def flops_of_frame(backbone: Backbone, size: int) -> float:
    """Floating-point operations of a frame's forward pass, two for a multiply-add."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    window = backbone.window or 1
    frames = torch.zeros((window, size, size, 3), dtype=torch.uint8, device=backbone.mean.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(frames)
    return float(counter.get_total_flops()) / window


def gemm(device: Device) -> float:
    """FLOP/s of a large product of fp32 matrices with all cores: the better of torch's libraries.

    The one that multiplies matrices (MKL in many builds) may use narrower instructions on other
    makers' processors than the one that convolves (oneDNN) does: a 1x1 convolution is a product.
    And on a GPU convolutions may use TF32 where products do not.
    """
    import torch

    side = SIDE if device.type != "cpu" else SIDE // 2
    left, right = (torch.ones((side, side), device=device) for _ in range(2))
    pixels, weight = left.T.reshape(1, side, -1, 64), right[:, :, None, None]
    products: list[Callable[[], Any]] = [
        lambda: left @ right,
        lambda: torch.nn.functional.conv2d(pixels, weight),
    ]
    best = 0.0
    with torch.inference_mode():
        for product in products * 3:
            began = time.perf_counter()
            product()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best
