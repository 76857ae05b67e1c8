"""Batch norms of the bundled networks, which exist only while they are trained; in what is shipped
they are folded into the convolutions before them.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class NormalisedConv(nn.Sequential):
    """A convolution with batch norm, as in training."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(self, convolution: nn.Conv2d) -> None:
        norm = nn.BatchNorm2d(convolution.out_channels)
        super().__init__(OrderedDict(convolution=convolution, norm=norm))


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy without its batch norms, computing the same in evaluation mode."""
    folded = copy.deepcopy(network).eval()
    for name, module in list(folded.named_modules()):
        if isinstance(module, NormalisedConv):
            folded.set_submodule(name, fuse_conv_bn_eval(module.convolution, module.norm))
    return folded


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
