"""Decoding alone and a network alone with all cores, written without vidfuse's pipeline.

    python benchmarks/independent.py CLIP [CLIP ...] [--network resnet50|thin_resnet] [--size 224] \
        [--frames 16] [--precision fp32|bf16|fp16] [--device cpu] [--seconds 5]

What `vidfuse bench` calls `decode_only` and `forward_only` must not be slow themselves, or a share
of their limit would mean nothing. So here is the plainest way to each: processes that read the
same frames with PyAV and drop them, and forward passes over frames that lie ready, the faster
of one process with all threads and of a process for each core. Prints clips/s as JSON.

Of vidfuse, only the definition of `thin_resnet` is used. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image
from torch import Tensor, nn

BATCH, GPU_BATCH = 16, 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--network", choices=("resnet50", "thin_resnet"), default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    print(json.dumps({"decode_only": decoding(arguments), **forward_passes(arguments)}))


def decoding(arguments: argparse.Namespace) -> float:
    """Clips per second of one process for each core."""
    read = partial(pixels, frames=arguments.frames, size=arguments.size)
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        pool.map(read, arguments.clips, chunksize=1)  # imports, and files into memory
        began = time.perf_counter()
        pool.map(read, arguments.clips, chunksize=1)
        passes: int = max(1, round(arguments.seconds / (time.perf_counter() - began)))
        began = time.perf_counter()
        pool.map(read, arguments.clips * passes, chunksize=1)
        return passes * len(arguments.clips) / (time.perf_counter() - began)


def pixels(clip: str, frames: int, size: int) -> int:
    """Read the frames in the middle of equal parts of a clip; returns how many."""
    with av.open(clip) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        decoded = [(f.time, f) for f in container.decode(stream) if f.time is not None]
    convert = VideoReformatter()  # one for all frames, which is much faster than one for each
    one_thread = {"threads": 1} if "threads" in str(convert.reformat.__doc__) else {}
    times = np.array([at for at, _ in decoded])
    length = times[-1] - times[0] + (np.median(np.diff(times)) if len(times) > 1 else 1)
    wanted = times[0] + length * (np.arange(frames) + 0.5) / frames
    chosen = np.unique(np.searchsorted(times, wanted, side="right") - 1)
    found = []
    for number in chosen:
        frame = convert.reformat(decoded[number][1], format="rgb24", **one_thread)
        image = Image.fromarray(frame.to_ndarray())
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        box = (left, top, left + side, top + side)
        found.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box)))
    return len(np.stack(found))


def forward_passes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Clips per second of the faster way to use all cores, or of a GPU."""
    ways: dict[str, tuple[int, int]] = {"all threads": (1, arguments.workers)}
    if arguments.device == "cpu" and arguments.workers > 1:
        ways["a process for each core"] = (arguments.workers, 1)
    found = {name: _rate(arguments, *way) for name, way in ways.items()}
    best = max(found, key=lambda name: found[name])
    return {"forward_only": found[best], "way": best, "ways": found}


def _rate(arguments: argparse.Namespace, processes: int, threads: int) -> float:
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(processes), context.Queue()
    words = (arguments, threads, start, rates)
    running = [context.Process(target=_forward, args=words) for _ in range(processes)]
    for each in running:
        each.start()
    for each in running:
        each.join()
        if each.exitcode:
            raise SystemExit(f"a forward pass ended with {each.exitcode}")
    return float(sum(rates.get() for _ in running) / arguments.frames)


def _forward(arguments: argparse.Namespace, threads: int, start: Any, rates: Any) -> None:
    """Forward passes for some seconds; sends frames per second."""
    torch.set_num_threads(threads)
    device, dtype = torch.device(arguments.device), DTYPES[arguments.precision]
    run = network(arguments.network, device, dtype)
    batch = BATCH if device.type == "cpu" else GPU_BATCH
    shape = (batch, arguments.size, arguments.size, 3)
    ready = torch.randint(0, 255, shape, dtype=torch.uint8)
    ready = ready.pin_memory() if device.type == "cuda" else ready
    for _ in range(3):
        run(ready)
    start.wait(timeout=120)
    passes, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < arguments.seconds:
        run(ready)
        passes += 1
    rates.put(passes * batch / seconds)


def network(name: str, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """From frames ``uint8 [N, S, S, 3]`` to features on the CPU, in inference mode."""
    if name == "resnet50":
        import torchvision
        from torch.fx.experimental.optimization import fuse

        whole = torchvision.models.resnet50(weights=None).eval()
        body: nn.Module = fuse(nn.Sequential(*list(whole.children())[:-1]))
    else:
        from vidfuse.backbones.thin_resnet import thin_resnet

        body = nn.Sequential(thin_resnet(), nn.AdaptiveAvgPool2d(1)).eval()
    body = body.to(device, dtype).to(memory_format=torch.channels_last)
    mean, spread = (torch.tensor(each, device=device) * 255 for each in (MEAN, SPREAD))

    @torch.inference_mode()
    def run(pixels: Tensor) -> Tensor:
        pixels = pixels.to(device, non_blocking=True)
        scaled = ((pixels.float() - mean) / spread).to(dtype).permute(0, 3, 1, 2)
        features: Tensor = body(scaled).flatten(1).half().cpu()
        return features

    return run


if __name__ == "__main__":
    main()
