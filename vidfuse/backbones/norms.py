"""Batch norms of the bundled networks, which exist only while they are trained; in what is shipped
they are folded into the convolutions before them.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping

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
