"""Write the table of torchvision's encoders, from what torchvision says of them.

    python scripts/torchvision_table.py > vidfuse/backbones/torchvision.csv

Takes some ten minutes: each network is built once, with random weights, for the shape of its map.
"""

from __future__ import annotations

import csv
import gc
import sys
from typing import Any

import torch
import torchvision
from torchvision.models import get_model_weights, list_models

from vidfuse.backbones import BackboneChoice
from vidfuse.backbones.info import IMAGENET_MEAN, IMAGENET_STD, BackboneInfo
from vidfuse.backbones.load import load_backbone
from vidfuse.backbones.torchvision_table import COLUMNS

LAYERS = {
    "alexnet": "features", "convnext": "features", "densenet": "features",
    "efficientnet": "features", "googlenet": "inception5b", "inception": "Mixed_7c",
    "maxvit": "blocks.3", "mnasnet": "layers", "mobilenet": "features", "regnet": "trunk_output",
    "resnet": "layer4", "resnext": "layer4", "shufflenet": "conv5", "squeezenet": "features",
    "swin": "permute", "vgg": "features", "vit": "map", "wide": "layer4",
    "r3d": "layer4", "mc3": "layer4", "r2plus1d": "layer4", "s3d": "features",
    "mvit": "map", "swin3d": "map",
}  # fmt: skip
"""The last map of each family."""
OWN_FACTORY = ("googlenet", "inception_v3")
FIXED = ("vit", "maxvit", "mvit")
"""Families that take frames of one size only."""
WINDOWS = {"swin3d": (32, 15), "mvit": (16, 7.5)}
"""Frames of a window and their rate, as published; all other video networks have 16 at 15."""


def main() -> None:
    """Write the table to standard output."""
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for video in (False, True):
        module = torchvision.models.video if video else torchvision.models
        for name in list_models(module=module):
            tags = get_model_weights(name)
            first = tags.DEFAULT  # stands first: the one that the bare name means
            for weights in sorted(tags, key=lambda each: each is not first):
                row = describe(name, weights, video=video)
                measure(row)
                writer.writerow(row)
                sys.stdout.flush()


def describe(name: str, weights: Any, *, video: bool) -> dict[str, Any]:
    """What torchvision says of one file of weights."""
    family = name.partition("_")[0].rstrip("0123456789") if not video else name.partition("_")[0]
    family = "resnet" if name.startswith("resnet") else family
    preprocessing, meta = weights.transforms(), weights.meta
    size = preprocessing.crop_size[0]
    factory = "torchvision.models" if not video else "vidfuse.backbones.torchvision_maps"
    if family == "vit" or name in OWN_FACTORY:
        factory = "vidfuse.backbones.torchvision_maps"
    usual = {"vit_b_16": 224, "vit_l_16": 224, "vit_h_14": 224}.get(name, size)
    function = name if size == usual else f"{name}_{size}"
    window, rate = WINDOWS.get(family, (16, 15)) if video else (1, "")
    mean, std = tuple(preprocessing.mean), tuple(preprocessing.std)
    return {
        "name": name,
        "tag": weights.name,
        "kind": "clip" if video else "image",
        "factory": f"{factory}:{function}",
        "url": weights.url,
        "layer": LAYERS[family],
        "size": size,
        "fixed_size": int(family in FIXED),
        "interpolation": preprocessing.interpolation.value,
        "crop_fraction": round(size / preprocessing.resize_size[0], 6),
        "mean": "" if mean == IMAGENET_MEAN else " ".join(map(str, mean)),
        "std": "" if std == IMAGENET_STD else " ".join(map(str, std)),
        "window": window,
        "rate": rate,
        "parameters": meta["num_params"],
        "gmacs": meta["_ops"],
        "megabytes": round(meta["_file_size"] * 1.048576, 1),
        "licence": "CC BY-NC 4.0" if "SWAG" in weights.name else "BSD-3-Clause",
    }


def measure(row: dict[str, Any]) -> None:
    """Add the shape of the map to a row, by a network with random weights."""
    info = BackboneInfo(
        factory=row["factory"], layer=row["layer"], kind=row["kind"], size=row["size"],
        window=row["window"], rate=row["rate"] or None,
    )  # fmt: skip
    choice = BackboneChoice(row["name"], info.layer, None, published=False, info=info)
    with torch.inference_mode():
        backbone = load_backbone(choice)
        frames = torch.zeros((info.window, info.size, info.size, 3), dtype=torch.uint8)
        row["steps"], row["channels"], row["side"], _ = backbone(frames).shape
    del backbone
    gc.collect()


if __name__ == "__main__":
    main()
