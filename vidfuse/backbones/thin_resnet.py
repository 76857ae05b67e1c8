"""The bundled network: a thin ResNet, small and fast enough to ship with the package.

He et al., "Deep residual learning for image recognition" (CVPR 2016), with basic blocks, fewer and
narrower than ResNet-18's, a stem of two 3×3 convolutions instead of 7×7 and pooling (He et al.,
"Bag of tricks", CVPR 2019), and no classifier. Frames of S×S pixels become ``layer4`` maps of
S/32 × S/32 positions: 4×4 at its own 128 pixels.

Batch norm exists only while it is trained; in what is shipped it is folded into the convolutions.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STEM = 32
WIDTHS = (48, 96, 192, 512)
DEPTHS = (2, 2, 2, 1)


def thin_resnet(
    weights: None = None,  # noqa: ARG001
    *,
    widths: tuple[int, ...] = WIDTHS,
    depths: tuple[int, ...] = DEPTHS,
    norm: bool = False,
) -> nn.Sequential:
    """Build the network without weights, as stages that can be cut at any of them.

    Args:
        weights: Always None; backbone factories share this signature.
        widths: Channels of each stage after the stem.
        depths: Blocks of each stage after the stem.
        norm: True puts batch norm behind each convolution, as in training; False is with batch
            norms folded into the weights.

    Returns:
        ``stem``, ``layer1`` (stride 4, 48 channels), ``layer2`` (8, 96), ``layer3`` (16, 192) and
        ``layer4`` (32, 512): ``[N, 3, S, S]`` becomes ``[N, 512, S/32, S/32]``.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    stages["stem"] = nn.Sequential(
        _convolution(3, STEM, 2, norm), nn.ReLU(), _convolution(STEM, widths[0], 2, norm), nn.ReLU()
    )
    channels = widths[0]
    for number, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
        blocks = []
        for position in range(depth):
            stride = 2 if position == 0 and number > 1 else 1
            blocks.append(BasicBlock(channels, width, stride, norm))
            channels = width
        stages[f"layer{number}"] = nn.Sequential(*blocks)
    return nn.Sequential(stages)


thin_resnet2 = partial(thin_resnet, depths=(1, 1, 2, 1))
"""That of the second edition, which scripts/distil_backbone.py trains; it is not bundled yet."""


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


class NormalisedConv(nn.Sequential):
    """A convolution with batch norm, as in training."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(self, convolution: nn.Conv2d) -> None:
        norm = nn.BatchNorm2d(convolution.out_channels)
        super().__init__(OrderedDict(convolution=convolution, norm=norm))


def _convolution(channels: int, width: int, stride: int, norm: bool, side: int = 3) -> nn.Module:
    convolution = nn.Conv2d(channels, width, side, stride, side // 2, bias=not norm)
    return NormalisedConv(convolution) if norm else convolution


def depths_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each stage, by the names of a network's weights."""
    blocks = {tuple(name.split(".")[:2]) for name in state if name.startswith("layer")}
    stages = Counter(stage for stage, _ in blocks)
    return tuple(stages[stage] for stage in sorted(stages))


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy without its batch norms, computing the same in evaluation mode."""
    folded = copy.deepcopy(network).eval()
    for name, module in list(folded.named_modules()):
        if isinstance(module, NormalisedConv):
            folded.set_submodule(name, fuse_conv_bn_eval(module.convolution, module.norm))
    return folded


@torch.no_grad()
def unfold_norms(network: nn.Module, state: Mapping[str, Tensor], images: Tensor) -> None:
    """Fill a network that has batch norms with weights into which norms were folded.

    Each norm gets the mean and the variance that its channels have on some images, and the scale
    and the shift that undo it: so training can go on from weights that were folded.

    Args:
        network: Built with ``norm=True``.
        state: Weights by name of the same network without norms.
        images: Normalised images ``[N, 3, S, S]`` that are like those to train on.
    """
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, NormalisedConv):
            module.convolution.weight.copy_(state[f"{name}.weight"])
            hooks.append(module.norm.register_forward_pre_hook(_undo(state[f"{name}.bias"])))
    network.eval()(images)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def renew_statistics(network: nn.Module, images: Tensor) -> None:
    """Give each batch norm the mean and the variance that its channels have on some images."""
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _undo(shift: Tensor) -> Callable[[nn.BatchNorm2d, tuple[Tensor]], None]:
    """A hook that makes a norm add ``shift`` to what it normalises, and change nothing else."""

    def adjust(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        maps = inputs[0].float()
        mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(shift + mean)

    return adjust
