"""The networks that the bundled backbone learns from, and checks that they are what they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2, SqueezeNet, mobilenet_v2, resnet18, squeezenet1_1
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.mobilenetv2 import InvertedResidual

from scripts.distillation.material import Pixels
from scripts.distillation.views import TEACHER_SIZE
from vidfuse.backbones import IMAGENET_MEAN, IMAGENET_STD
from vidfuse.backbones.grid import area_weights
from vidfuse.backbones.load import read_weights
from vidfuse.video.frames import squares

GRID = 4  # positions a side of the maps that are matched
HINT_GRID = 8  # and of the one that guides the middle of the network


class Teachers(nn.Module):
    """All teachers at once.

    Args:
        data: Folder with ``weights/``.
    """

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.resnet = create_feature_extractor(
            resnet(data), {"layer2": "hint", "layer3": "resnet18"}
        )
        self.squeezenet = squeezenet(data)
        self.mobilenet = mobilenet(data).features
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """What the teachers say of views ``uint8 [N, 224, 224, 3]``.

        Returns:
            Maps ``resnet18 [N, 256, 4, 4]``, ``squeezenet [N, 512, 4, 4]``, ``mobilenet
            [N, 1280, 4, 4]`` and ``hint [N, 128, 8, 8]``, and ``logits [N, 1000]``.
        """
        images = normalise(views)
        maps = self.resnet(images)
        squeezed = self.squeezenet.features(images)
        return {
            "resnet18": _pool(maps["resnet18"], GRID),
            "squeezenet": _pool(squeezed, GRID),
            "mobilenet": _pool(self.mobilenet(images), GRID),
            "hint": _pool(maps["hint"], HINT_GRID),
            "logits": self.squeezenet.classifier(squeezed).flatten(1),
        }


def normalise(views: Tensor) -> Tensor:
    """Frames ``uint8 [N, S, S, 3]`` as a network's input ``float32 [N, 3, S, S]``."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (views.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _pool(maps: Tensor, grid: int) -> Tensor:
    """Average square maps ``[N, D, h, h]`` over the cells of a grid, as cached features are."""
    weights = torch.from_numpy(area_weights(maps.shape[-1], grid))
    return weights @ maps.float() @ weights.T


def resnet(data: Path) -> nn.Module:
    """ResNet-18, of which only what lies before layer4 has weights."""
    network: nn.Module = resnet18()
    state = read_weights(data / "weights" / "resnet18_in1k_v1_to_layer3_bnfolded.pth")
    gaps = network.load_state_dict(state, strict=False)
    missing = {key for key in gaps.missing_keys if not key.endswith("num_batches_tracked")}
    if gaps.unexpected_keys or any(not key.startswith(("layer4", "fc")) for key in missing):
        raise ValueError(f"these weights do not fit ResNet-18: {gaps}")
    return network.eval()


def squeezenet(data: Path) -> SqueezeNet:
    """SqueezeNet 1.1 with its classifier."""
    network: SqueezeNet = squeezenet1_1()
    network.load_state_dict(
        read_weights(data / "weights" / "squeezenet1_1_gluon_torchvision_keys.pth")
    )
    return network.eval()


def mobilenet(data: Path) -> MobileNetV2:
    """MobileNetV2 up to its 1280 channels, from one file per tensor.

    Its first block has the expanding 1×1 convolution that torchvision's leaves out, so that block
    is built anew; all else is in torchvision's order.
    """
    network: MobileNetV2 = mobilenet_v2()
    expanding = InvertedResidual(32, 16, 1, 2)
    expanding.conv[0] = type(expanding.conv[0])(32, 32, kernel_size=1, activation_layer=nn.ReLU6)
    expanding.conv[1] = type(expanding.conv[0])(
        32, 32, kernel_size=3, groups=32, activation_layer=nn.ReLU6
    )
    expanding.conv[2] = nn.Conv2d(32, 16, 1, bias=False)
    network.features[1] = expanding
    folder = data / "weights" / "mobilenetv2_gluon_npy" / "weights"

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.load(folder / f"mobilenetv20_features_{name}.npy"))

    stages = ["", *(f"linearbottleneck{number}_" for number in range(17))]
    for stage, block in zip([*stages, ""], network.features, strict=True):
        first = 1 if block is network.features[-1] else 0
        convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
        for number, convolution in enumerate(convolutions, first):
            convolution.weight.data.copy_(tensor(f"{stage}conv{number}_weight"))
        for number, norm in enumerate(norms, first):
            norm.weight.data.copy_(tensor(f"{stage}batchnorm{number}_gamma"))
            norm.bias.data.copy_(tensor(f"{stage}batchnorm{number}_beta"))
            norm.get_buffer("running_mean").copy_(tensor(f"{stage}batchnorm{number}_running_mean"))
            norm.get_buffer("running_var").copy_(tensor(f"{stage}batchnorm{number}_running_var"))
    return network.eval()


@torch.inference_mode()
def check(teachers: Teachers, pixels: list[Pixels]) -> dict[str, float]:
    """Whether the teachers are what they claim to be.

    Args:
        teachers: The teachers.
        frames: One of each ImageNet class, in the order of the classes.

    Returns:
        ``squeezenet_top1`` and ``squeezenet_top5``, and for MobileNetV2, which has no classifier,
        how well the statistics that its batch norms remember fit what flows through them: the
        median correlation over layers of the remembered with the observed channel means.

    Raises:
        ValueError: A teacher is not what it claims to be.
    """
    images = torch.from_numpy(squares(pixels, TEACHER_SIZE))
    logits = torch.cat([teachers.squeezenet(normalise(part)) for part in images.split(50)])
    ranks = logits.argsort(1, descending=True)
    truth = torch.arange(len(images))[:, None]
    found = {
        "squeezenet_top1": (ranks[:, :1] == truth).any(1).float().mean().item(),
        "squeezenet_top5": (ranks[:, :5] == truth).any(1).float().mean().item(),
    }
    found["mobilenet_statistics"] = _fit_of_statistics(teachers.mobilenet, images[::10])
    if found["squeezenet_top1"] < 0.5 or found["mobilenet_statistics"] < 0.9:
        raise ValueError(f"these are not the teachers' weights: {found}")
    return found


def _fit_of_statistics(network: nn.Module, images: Tensor) -> float:
    fits: list[float] = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor], _: Tensor) -> None:
        observed = inputs[0].mean((0, 2, 3))
        fits.append(
            torch.corrcoef(torch.stack([observed, norm.get_buffer("running_mean")]))[0, 1].item()
        )

    hooks = [
        module.register_forward_hook(compare)
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    network(normalise(images))
    for hook in hooks:
        hook.remove()
    return float(np.median(fits))
