"""Features of clips as a plain script makes them, to set vidfuse's extraction beside.

    python benchmarks/peer.py CLIP [CLIP ...] [--way sampled|every] [--reader decord|opencv] \
        [--network resnet50|thin_resnet] [--size 224] [--frames 16] [--device cpu] [--passes 1]

`sampled`  decord (or OpenCV) hands over evenly spaced frames of a clip, torchvision's transforms
           turn them into a batch, and ResNet-50 runs on it in fp32 and eager mode: clip by clip
`every`    every frame of a clip is read so and goes through the network, a clip at a time in
           batches of 64, as tools do that make frame-wise features of whole videos

Prints clips/s and frames/s as JSON; loading the network and a first clip are not counted. Of
vidfuse, only the definition of `thin_resnet` is used. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

LARGEST_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--way", choices=("sampled", "every"), default="sampled")
    parser.add_argument("--reader", choices=("decord", "opencv"), default="decord")
    parser.add_argument("--network", choices=("resnet50", "thin_resnet"), default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--passes", type=int, default=1)
    arguments = parser.parse_args()

    model = network(arguments.network).eval().to(arguments.device)
    steps = [
        transforms.Resize(arguments.size),
        transforms.CenterCrop(arguments.size),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    transform = transforms.Compose(steps)

    def features(clip: str) -> int:
        frames = read(arguments, clip)
        batch = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
        with torch.no_grad():
            found = [model(part.to(arguments.device)).cpu() for part in batch.split(LARGEST_BATCH)]
        return len(torch.cat(found).numpy())

    features(arguments.clips[0])
    began = time.perf_counter()
    counts = [features(clip) for _ in range(arguments.passes) for clip in arguments.clips]
    seconds = time.perf_counter() - began
    rates = {
        "clips_per_second": len(counts) / seconds,
        "frames_per_second": sum(counts) / seconds,
    }
    print(json.dumps({**rates, "frames_per_clip": sum(counts) / len(counts)}))


def network(name: str) -> nn.Module:
    if name == "resnet50":
        model: nn.Module = models.resnet50(weights=None)
        model.fc = nn.Identity()
        return model
    from vidfuse.backbones.thin_resnet import thin_resnet

    return nn.Sequential(thin_resnet(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def read(arguments: argparse.Namespace, clip: str) -> list[np.ndarray]:
    """Frames of a clip, RGB."""
    wanted = range if arguments.way == "every" else partial(evenly, frames=arguments.frames)
    if arguments.reader == "decord":
        from decord import VideoReader

        reader = VideoReader(clip)
        return list(reader.get_batch(list(wanted(len(reader)))).asnumpy())
    import cv2

    capture, frames = cv2.VideoCapture(clip), []
    while (found := capture.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    return [frames[number] for number in wanted(len(frames))]


def evenly(count: int, frames: int) -> list[int]:
    return [int(count * (part + 0.5) / frames) for part in range(frames)]


if __name__ == "__main__":
    main()
