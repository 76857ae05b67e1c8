"""The first edition of the bundled network: a thin ResNet, small enough to ship with the package.

He et al., "Deep residual learning for image recognition" (CVPR 2016), with basic blocks, fewer and
narrower than ResNet-18's, a stem of two 3×3 convolutions instead of 7×7 and pooling (He et al.,
"Bag of tricks", CVPR 2019), and no classifier. Frames of S×S pixels become ``layer4`` maps of
S/32 × S/32 positions: 4×4 at its own 128 pixels.

Batch norm exists only while it is trained; in what is shipped it is folded into the convolutions.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from vidfuse.backbones.norms import NormalisedConv

STEM = 32
WIDTHS = (48, 96, 192, 512)
DEPTHS = (2, 2, 2, 1)


def thin_resnet(weights: None = None, *, norm: bool = False) -> nn.Sequential:  # noqa: ARG001
    """Build the network without weights, as stages that can be cut at any of them.

    Args:
        weights: Always None; backbone factories share this signature.
        norm: True puts batch norm behind each convolution, as in training; False is with batch
            norms folded into the weights.

    Returns:
        ``stem``, ``layer1`` (stride 4, 48 channels), ``layer2`` (8, 96), ``layer3`` (16, 192) and
        ``layer4`` (32, 512): ``[N, 3, S, S]`` becomes ``[N, 512, S/32, S/32]``.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    stages["stem"] = nn.Sequential(
        _convolution(3, STEM, 2, norm), nn.ReLU(), _convolution(STEM, WIDTHS[0], 2, norm), nn.ReLU()
    )
    channels = WIDTHS[0]
    for number, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), 1):
        blocks = []
        for position in range(depth):
            stride = 2 if position == 0 and number > 1 else 1
            blocks.append(BasicBlock(channels, width, stride, norm))
            channels = width
        stages[f"layer{number}"] = nn.Sequential(*blocks)
    return nn.Sequential(stages)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, fig. 5 left)."""

    def __init__(self, channels: int, width: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.first = _convolution(channels, width, stride, norm)
        self.second = _convolution(width, width, 1, norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = _convolution(channels, width, stride, norm, side=1)

    def forward(self, maps: Tensor) -> Tensor:
        """``[N, channels, h, w]`` becomes ``[N, width, h/stride, w/stride]``."""
        inner: Tensor = self.second(self.first(maps).relu_()) + self.shortcut(maps)
        return inner.relu_()


def _convolution(channels: int, width: int, stride: int, norm: bool, side: int = 3) -> nn.Module:
    convolution = nn.Conv2d(channels, width, side, stride, side // 2, bias=not norm)
    return NormalisedConv(convolution) if norm else convolution
