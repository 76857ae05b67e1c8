"""The networks that the bundled backbone learns from, and checks that they are what they claim."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

from vidfuse.adaptation.teacher import Teacher
from vidfuse.backbones import BACKBONES, IMAGENET_MEAN, IMAGENET_STD, choose, efficientnet_lite
from vidfuse.backbones.load import Backbone, fetch, load_backbone, read_weights
from vidfuse.progress import Reporter
from vidfuse.video.frames import Pixels, squares

LEAST_TOP1 = 0.7  # of EfficientNet-Lite on still images, of which it probably knows most


def load_teacher(name: str, data: Path) -> Teacher:
    """A teacher by its name, a key of `WIDTHS`.

    Args:
        name: ``thin_resnet``, ``resnet18``, ``efficientnet_lite0`` or ``efficientnet_lite1``.
        data: Folder with ``weights/``, for ResNet-18.
    """
    if name == "thin_resnet":
        return Teacher(load_backbone(choose(name)), WIDTHS[name], size=BACKBONES[name].size)
    if name == "resnet18":
        body = nn.Sequential(*list(resnet(data).children())[:-3])
        return Teacher(Backbone(body, IMAGENET_MEAN, IMAGENET_STD), WIDTHS[name])
    return efficientnet(name)


WIDTHS = {
    "thin_resnet": 512,
    "resnet18": 256,
    "efficientnet_lite0": 1280,
    "efficientnet_lite1": 1280,
}
"""Channels of each teacher's map: of ResNet-18 that is layer3, for want of layer4's weights."""


def resnet(data: Path) -> nn.Module:
    """ResNet-18, of which only what lies before layer4 has weights.

    Raises:
        ValueError: The weights do not fit.
    """
    network: nn.Module = resnet18()
    state = read_weights(data / "weights" / "resnet18_in1k_v1_to_layer3_bnfolded.pth")
    gaps = network.load_state_dict(state, strict=False)
    missing = {key for key in gaps.missing_keys if not key.endswith("num_batches_tracked")}
    if gaps.unexpected_keys or any(not key.startswith(("layer4", "fc")) for key in missing):
        raise ValueError(f"these weights do not fit ResNet-18: {gaps}")
    return network.eval()


def efficientnet(name: str) -> Teacher:
    """EfficientNet-Lite with its classifier, from its package of weights.

    Raises:
        UserError: The package is not installed.
    """
    choice = choose(name)
    fetch(choice, Reporter())
    assert choice.weights is not None
    state = efficientnet_lite.translate(read_weights(choice.weights))
    classifier = nn.Linear(WIDTHS[name], efficientnet_lite.CLASSES)
    classifier.load_state_dict({key: state[f"classifier.{key}"] for key in ("weight", "bias")})
    return Teacher(load_backbone(choice), WIDTHS[name], classifier)


@torch.inference_mode()
def check(teacher: Teacher, pixels: list[Pixels]) -> float:
    """Top-1 accuracy of a teacher on still images.

    Args:
        teacher: A teacher with a classifier.
        pixels: One image of each ImageNet class, in the order of the classes.

    Raises:
        ValueError: The teacher is not what it claims to be.
    """
    assert teacher.classifier is not None
    views = torch.from_numpy(squares(pixels, teacher.size))
    maps = [teacher(part) for part in views.split(50)]
    logits = teacher.classifier(torch.cat(maps).mean((2, 3)))
    top1 = float((logits.argmax(1) == torch.arange(len(pixels))).float().mean())
    if top1 < LEAST_TOP1:
        raise ValueError(f"these are not the teacher's weights: top-1 accuracy {top1:.3f}")
    return top1
