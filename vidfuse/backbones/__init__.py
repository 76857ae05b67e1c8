"""The networks that turn a frame into features, as a static table.

Reading the table imports neither torch nor torchvision: what a cached feature means can be known
without building the network. A new backbone is one line here, and one file if torchvision has no
such network.

The default is bundled with the package, so that the same command gives the same model everywhere
and needs no network. The others are downloaded when they are named.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidfuse.errors import UnknownNameError, UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Grid = int | Literal["native"]
"""Cells g a side of the map that is kept of each frame; ``native`` keeps it as it is."""
FP32 = "fp32"  # what all other precisions must agree with


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """One line of the table.

    Attributes:
        factory: ``module:function`` that builds the network without weights.
        weights: File name of its published weights: ImageNet's under torch's download folder, or
            beside this file where they are bundled.
        layer: Layer that features are taken from by default: its last map of positions.
        size: Side of the frames it was trained on, in pixels.
        mean: Per-channel mean (RGB, frames scaled to 0..1) that its input is normalised with.
        std: Likewise the standard deviation.
        sha256: Of the bundled weights; None where the weights are not bundled.
    """

    factory: str
    weights: str
    layer: str
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sha256: str | None = None

    @property
    def place(self) -> Path:
        """Path of the published weights, also before they are downloaded."""
        folder = download_folder() if self.sha256 is None else Path(__file__).parent
        return folder / self.weights


DEFAULT_BACKBONE = "thin_resnet"
# The first published ImageNet weights of each (torchvision's IMAGENET1K_V1), which the literature
# on frozen features uses. The hexadecimal end of a name begins the file's sha256.
BACKBONES = {
    "thin_resnet": BackboneInfo(
        "vidfuse.backbones.thin_resnet:thin_resnet",
        "thin_resnet.safetensors",
        "layer4",
        size=128,
        sha256="4352ead32052a5baa1c72bcf65a318d4dfa6d33000954202961d124c8f8530a8",
    ),
    "resnet18": BackboneInfo("torchvision.models:resnet18", "resnet18-f37072fd.pth", "layer4"),
    "resnet34": BackboneInfo("torchvision.models:resnet34", "resnet34-b627a593.pth", "layer4"),
    "resnet50": BackboneInfo("torchvision.models:resnet50", "resnet50-0676ba61.pth", "layer4"),
    "resnet101": BackboneInfo("torchvision.models:resnet101", "resnet101-63fe2227.pth", "layer4"),
    "resnet152": BackboneInfo("torchvision.models:resnet152", "resnet152-394f9c45.pth", "layer4"),
    "wide_resnet50_2": BackboneInfo(
        "torchvision.models:wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", "layer4"
    ),
    "vgg16": BackboneInfo("torchvision.models:vgg16", "vgg16-397923af.pth", "features"),
    "vgg16_bn": BackboneInfo("torchvision.models:vgg16_bn", "vgg16_bn-6c64b313.pth", "features"),
}
DOWNLOAD_URL = "https://download.pytorch.org/models/"
RANDOM_WEIGHTS = "random"


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """A backbone that the user named, with everything that is needed to build it.

    Attributes:
        name: Key of ``BACKBONES``.
        layer: Layer that features are taken from.
        weights: The weights' file; None stands for random weights.
        published: True for the published weights, which need not be kept in a model file.
        info: Its line of the table.
    """

    name: str
    layer: str
    weights: Path | None
    published: bool
    info: BackboneInfo


def choose(
    name: str = DEFAULT_BACKBONE, weights: str | None = None, layer: str | None = None
) -> BackboneChoice:
    """Resolve the options ``--backbone``, ``--weights`` and ``--layer``.

    Args:
        name: Key of ``BACKBONES``.
        weights: A file, ``random``, or None for the published weights.
        layer: Name of a layer; None is the backbone's default.

    Raises:
        UnknownNameError: There is no such backbone.
        UserError: The weights' file does not exist.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", name, BACKBONES)
    info = BACKBONES[name]
    layer = layer or info.layer
    if weights == RANDOM_WEIGHTS:
        return BackboneChoice(name, layer, None, published=False, info=info)
    if weights is None:
        return BackboneChoice(name, layer, info.place, published=True, info=info)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"{weights}: no such file of weights", "Check --weights.")
    return BackboneChoice(name, layer, path, published=False, info=info)


def download_folder() -> Path:
    """The folder in which torch keeps downloaded weights (``TORCH_HOME`` is respected)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else cache / "torch") / "hub" / "checkpoints"
