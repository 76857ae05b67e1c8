"""The second edition of the bundled network: shaped like EfficientNet-Lite, and made for CPUs.

Its stages end in linear bottlenecks of as many channels as those of EfficientNet-Lite0 (Tan and Le,
ICML 2019; Liu 2020), from which it learned stage by stage. What lies within is its own: large maps
are filtered by dense 3×3 convolutions that expand and filter at once ("fused" blocks, Gupta and
Tan, "EfficientNet-EdgeTPU", 2019), which CPUs run faster than filtering each channel alone; small
ones by inverted residual blocks (Sandler et al., "MobileNetV2", CVPR 2018), fewer than the
teacher's. Convolutions pad as the teacher's do, so that positions of both maps are the same place.

Batch norm exists only while it is trained; in what is shipped it is folded into the convolutions.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from vidfuse.backbones.efficientnet_lite import SameConv2d
from vidfuse.backbones.norms import NormalisedConv

STEM, HEAD = 24, 1280
# Of each stage, its blocks (kind, kernel, stride, hidden channels) and the channels it ends in.
STAGES = (
    ((("fused", 3, 2, 64),), 24),
    ((("fused", 3, 2, 144), ("fused", 3, 1, 160)), 40),
    ((("fused", 3, 2, 240), ("fused", 3, 1, 240)), 80),
    ((("inverted", 5, 1, 480), ("inverted", 5, 1, 448)), 112),
    ((("inverted", 5, 2, 672), *[("inverted", 5, 1, 1152)] * 2), 192),
    ((("inverted", 3, 1, 1152),), 320),
)


def thin_efficientnet(weights: None = None, *, norm: bool = False) -> nn.Sequential:  # noqa: ARG001
    """Build the network without weights, as stages that can be cut at any of them.

    Args:
        weights: Always None; backbone factories share this signature.
        norm: True puts batch norm behind each convolution, as in training; False is with batch
            norms folded into the weights.

    Returns:
        ``stem``, ``stage1`` (stride 4, 24 channels), ``stage2`` (8, 40), ``stage3`` (16, 80),
        ``stage4`` (16, 112), ``stage5`` (32, 192), ``stage6`` (32, 320) and ``head`` (32, 1280):
        ``[N, 3, S, S]`` becomes ``[N, 1280, ⌈S/32⌉, ⌈S/32⌉]``.
    """
    network: OrderedDict[str, nn.Module] = OrderedDict()
    network["stem"] = nn.Sequential(_convolution(3, STEM, 3, norm, stride=2), nn.ReLU(inplace=True))
    channels = STEM
    for number, (blocks, out) in enumerate(STAGES, 1):
        stage = []
        for kind, kernel, stride, hidden in blocks:
            stage.append(Bottleneck(kind, channels, hidden, out, kernel, stride, norm))
            channels = out
        network[f"stage{number}"] = nn.Sequential(*stage)
    network["head"] = nn.Sequential(_convolution(channels, HEAD, 1, norm), nn.ReLU(inplace=True))
    return nn.Sequential(network)


class Bottleneck(nn.Module):
    """Expand, filter, project without a nonlinearity; a shortcut where shapes allow it.

    Args:
        kind: ``fused`` expands and filters in one dense convolution, ``inverted`` expands at each
            position and then filters each channel alone.
        channels: Of its input.
        hidden: Channels in between.
        out: Of its output.
        kernel: Side of the filter.
        stride: Of the filter.
        norm: Whether batch norms follow the convolutions.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        hidden: int,
        out: int,
        kernel: int,
        stride: int,
        norm: bool,
    ) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if kind == "fused":
            parts["filter"] = _convolution(channels, hidden, kernel, norm, stride=stride)
        else:
            parts["expand"] = _convolution(channels, hidden, 1, norm)
            parts["act1"] = nn.ReLU(inplace=True)
            parts["filter"] = _convolution(hidden, hidden, kernel, norm, stride, groups=hidden)
        parts["act"] = nn.ReLU(inplace=True)
        parts["project"] = _convolution(hidden, out, 1, norm)
        self.parts = nn.Sequential(parts)
        self.shortcut = stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        """``[N, channels, h, w]`` becomes ``[N, out, ⌈h/stride⌉, ⌈w/stride⌉]``."""
        inner: Tensor = self.parts(maps)
        return maps + inner if self.shortcut else inner


def _convolution(
    channels: int, out: int, kernel: int, norm: bool, stride: int = 1, groups: int = 1
) -> nn.Module:
    """A convolution that pads like TensorFlow's "SAME", with batch norm where it is trained."""
    kind, padding = (SameConv2d, 0) if stride > 1 else (nn.Conv2d, kernel // 2)
    convolution = kind(channels, out, kernel, stride, padding, groups=groups, bias=not norm)
    return NormalisedConv(convolution) if norm else convolution
