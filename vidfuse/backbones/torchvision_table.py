"""torchvision's encoders: one line of ``torchvision.csv`` for each file of published weights."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from vidfuse.backbones.info import IMAGENET_MEAN, IMAGENET_STD, BackboneInfo, Triple, Weights

COLUMNS = (
    "name", "tag", "kind", "factory", "url", "layer", "size", "fixed_size", "interpolation",
    "crop_fraction", "mean", "std", "channels", "side", "window", "steps", "rate", "parameters",
    "gmacs", "megabytes", "licence",
)  # fmt: skip

CITATIONS = {
    "alexnet": "Krizhevsky, One Weird Trick for Parallelizing CNNs, 2014",
    "convnext": "Liu et al., A ConvNet for the 2020s, CVPR 2022",
    "densenet": "Huang et al., Densely Connected Convolutional Networks, CVPR 2017",
    "efficientnet_v2": "Tan and Le, EfficientNetV2, ICML 2021",
    "efficientnet": "Tan and Le, EfficientNet: Rethinking Model Scaling, ICML 2019",
    "googlenet": "Szegedy et al., Going Deeper with Convolutions, CVPR 2015",
    "inception": "Szegedy et al., Rethinking the Inception Architecture, CVPR 2016",
    "maxvit": "Tu et al., MaxViT: Multi-Axis Vision Transformer, ECCV 2022",
    "mc3": "Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018",
    "mnasnet": "Tan et al., MnasNet: Platform-Aware Neural Architecture Search, CVPR 2019",
    "mobilenet_v2": "Sandler et al., MobileNetV2, CVPR 2018",
    "mobilenet_v3": "Howard et al., Searching for MobileNetV3, ICCV 2019",
    "mvit_v1": "Fan et al., Multiscale Vision Transformers, ICCV 2021",
    "mvit_v2": "Li et al., MViTv2: Improved Multiscale Vision Transformers, CVPR 2022",
    "r2plus1d": "Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018",
    "r3d": "Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018",
    "regnet": "Radosavovic et al., Designing Network Design Spaces, CVPR 2020",
    "resnet": "He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
    "resnext": "Xie et al., Aggregated Residual Transformations, CVPR 2017",
    "s3d": "Xie et al., Rethinking Spatiotemporal Feature Learning, ECCV 2018",
    "shufflenet": "Ma et al., ShuffleNet V2, ECCV 2018",
    "squeezenet": "Iandola et al., SqueezeNet, 2016",
    "swin3d": "Liu et al., Video Swin Transformer, CVPR 2022",
    "swin_v2": "Liu et al., Swin Transformer V2, CVPR 2022",
    "swin": "Liu et al., Swin Transformer, ICCV 2021",
    "vgg": "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015",
    "vit": "Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021",
    "wide": "Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016",
}
"""The publication of each family; the first key that a name begins with counts."""


@cache
def torchvision_backbones() -> dict[str, BackboneInfo]:
    """All of them by ``name.TAG``, the default tag of each network first."""
    text = (files(__package__) / "torchvision.csv").read_text("utf-8")
    return {f"{row['name']}.{row['tag']}": _info(row) for row in csv.DictReader(text.splitlines())}


def _info(row: dict[str, str]) -> BackboneInfo:
    """A line of the table."""
    own_names = row["layer"] == "map" and "swin3d" not in row["name"]
    return BackboneInfo(
        factory=row["factory"],
        weights=Weights(
            row["url"].rpartition("/")[2], url=row["url"], megabytes=float(row["megabytes"])
        ),
        layer=row["layer"],
        kind="clip" if row["kind"] == "clip" else "image",
        size=int(row["size"]),
        fixed_size=row["fixed_size"] == "1",
        interpolation="bicubic" if row["interpolation"] == "bicubic" else "bilinear",
        crop_fraction=float(row["crop_fraction"]),
        mean=_triple(row["mean"], IMAGENET_MEAN),
        std=_triple(row["std"], IMAGENET_STD),
        channels=int(row["channels"]),
        side=int(row["side"]),
        window=int(row["window"]),
        steps=int(row["steps"]),
        rate=float(row["rate"]) if row["rate"] else None,
        parameters=int(row["parameters"]),
        gmacs=float(row["gmacs"]),
        licence=row["licence"],
        citation=next(text for name, text in CITATIONS.items() if row["name"].startswith(name)),
        translate="vidfuse.backbones.torchvision_maps:translate" if own_names else "",
    )


def _triple(text: str, usual: Triple) -> Triple:
    """Three numbers, or the usual ones."""
    if not text:
        return usual
    red, green, blue = map(float, text.split())
    return red, green, blue
