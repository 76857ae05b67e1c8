"""Depthwise convolutions whose gradients are quick on a CPU, where torch's take most of a step."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def quicken(network: nn.Module) -> None:
    """Let all depthwise convolutions of a network compute their gradients as here."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module._conv_forward = partial(  # type: ignore[method-assign]
                depthwise, stride=module.stride[0], padding=int(module.padding[0])
            )


def depthwise(
    maps: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int
) -> Tensor:
    """Convolve each channel of maps ``[N, C, h, w]`` with its kernel ``[C, 1, k, k]``."""
    convolved: Tensor = _Depthwise.apply(maps, weight, stride, padding)
    return convolved if bias is None else convolved + bias[:, None, None]


class _Depthwise(torch.autograd.Function):
    """The gradient of the input is a depthwise convolution with mirrored kernels; that of a kernel
    sums, of the products of all pairs of positions, those that lie apart as its elements do.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        weight = weight.to(maps.dtype)
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(maps, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        maps, weight = ctx.saved_tensors
        (height, width), kernel = maps.shape[-2:], weight.shape[-1]
        before, after = (by_channel(each) for each in (maps, gradient))
        pairs = torch.bmm(before.mT, after)  # [C, positions, positions after]
        apart = offsets(height, width, kernel, ctx.stride, ctx.padding)
        of_weight = (pairs.flatten(1).float() @ apart).view(weight.shape)
        if ctx.stride > 1:  # as if it had stride 1, with zeros between
            shrunk = kernel - 1 - 2 * ctx.padding
            spread = gradient.new_zeros(*gradient.shape[:2], height - shrunk, width - shrunk)
            spread = spread.to(memory_format=torch.channels_last)
            spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
            gradient = spread
        around = kernel - 1 - ctx.padding
        of_maps = F.conv2d(gradient, weight.flip(2, 3), None, 1, around, 1, len(weight))
        return of_maps, of_weight, None, None


def by_channel(maps: Tensor) -> Tensor:
    """Maps ``[N, C, h, w]`` as ``[C, N, h·w]``; one large transposition is far quicker than N."""
    count, channels, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    return rows.T.contiguous().view(channels, count, height * width)


@cache
def offsets(height: int, width: int, kernel: int, stride: int, padding: int) -> Tensor:
    """The element of a kernel that joins each pair of positions: ``[pairs, kernel²]``, 1 or 0."""
    before, after = (
        torch.stack(torch.meshgrid(*map(torch.arange, sides), indexing="ij"), -1)
        for sides in (
            (height, width),
            [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)],
        )
    )
    apart = before.view(-1, 1, 2) - after.view(1, -1, 2) * stride + padding
    inside = ((apart >= 0) & (apart < kernel)).all(-1)
    element = (apart[..., 0] * kernel + apart[..., 1]).clamp(0, kernel**2 - 1)
    return (F.one_hot(element, kernel**2) * inside[..., None]).flatten(0, 1).float()
