"""torchvision's networks whose map of positions is no layer of theirs: it is taken apart here.

Each factory returns a network whose tensors have torchvision's names. Video networks answer with
``[N, D, T', h, w]`` for ``[N, 3, T, S, S]``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vidfuse.backbones.imports import import_torchvision

models: Any = import_torchvision().models


def googlenet(weights: None = None) -> nn.Module:
    """GoogLeNet as its published weights need it: with their own normalisation, too."""
    network: nn.Module = models.googlenet(weights=weights, transform_input=True, init_weights=False)
    return network


def inception_v3(weights: None = None) -> nn.Module:
    """Inception v3 as its published weights need it: with their own normalisation, too."""
    network: nn.Module = models.inception_v3(
        weights=weights, transform_input=True, init_weights=False
    )
    return network


class Channels(nn.Module):
    """Moves the channels of ``[N, ..., D]`` to ``[N, D, ...]``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """The same numbers, channels first."""
        return tokens.movedim(-1, 1)


class VisionTransformerMap(nn.Module):
    """The patches of a vision transformer, after its last norm, as a map; without class token.

    Dosovitskiy et al., "An Image Is Worth 16x16 Words" (ICLR 2021).
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_proj, self.encoder = network.conv_proj, network.encoder
        self.class_token = network.class_token

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 3, S, S]`` becomes ``[N, D, S/p, S/p]`` with patches of p pixels."""
        patches: Tensor = self.conv_proj(images)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = self.encoder(torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], 1))
        found: Tensor = tokens[:, 1:].transpose(1, 2).unflatten(2, patches.shape[2:])
        return found


class MultiscaleMap(nn.Module):
    """The patches of a multiscale vision transformer, after its last norm, as a map in time.

    Fan et al., "Multiscale Vision Transformers" (ICCV 2021).
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_proj, self.pos_encoding = network.conv_proj, network.pos_encoding
        self.blocks, self.norm = network.blocks, network.norm

    def forward(self, windows: Tensor) -> Tensor:
        """``[N, 3, T, S, S]`` becomes ``[N, D, T/2, S/32, S/32]``."""
        tokens = self.conv_proj(windows).flatten(2).transpose(1, 2)
        tokens = self.pos_encoding(tokens)
        shape = (self.pos_encoding.temporal_size, *self.pos_encoding.spatial_size)
        for block in self.blocks:
            tokens, shape = block(tokens, shape)
        found: Tensor = self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, shape)
        return found


def vision_transformer(name: str, size: int) -> Any:
    """The factory of a vision transformer for frames of so many pixels."""

    def factory(weights: None = None) -> nn.Module:
        network = getattr(models, name)(weights=weights, image_size=size)
        parts = OrderedDict(map=VisionTransformerMap(network), heads=network.heads)
        return nn.Sequential(parts)

    return factory


def multiscale(name: str) -> Any:
    """The factory of a multiscale vision transformer."""

    def factory(weights: None = None) -> nn.Module:
        network = getattr(models.video, name)(weights=weights)
        return nn.Sequential(OrderedDict(map=MultiscaleMap(network), head=network.head))

    return factory


def stages(name: str, *, channels_last: bool = False) -> Any:
    """The factory of a video network whose parts follow each other, as they do in torchvision.

    Args:
        name: The network.
        channels_last: True where its last norm leaves the channels last.
    """

    def factory(weights: None = None) -> nn.Module:
        network = getattr(models.video, name)(weights=weights)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for part, module in network.named_children():
            parts[part] = module
            if channels_last and part == "norm":
                parts["map"] = Channels()
        return nn.Sequential(parts)

    return factory


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a transformer's published file to those of its map."""
    kept = ("map.", "head")
    return {name if name.startswith(kept) else f"map.{name}": state[name] for name in state}


r3d_18, mc3_18, r2plus1d_18, s3d = map(stages, ("r3d_18", "mc3_18", "r2plus1d_18", "s3d"))
swin3d_t, swin3d_s, swin3d_b = (stages(f"swin3d_{size}", channels_last=True) for size in "tsb")
mvit_v1_b, mvit_v2_s = map(multiscale, ("mvit_v1_b", "mvit_v2_s"))
vit_b_16, vit_b_32 = vision_transformer("vit_b_16", 224), vision_transformer("vit_b_32", 224)
vit_l_16, vit_l_32 = vision_transformer("vit_l_16", 224), vision_transformer("vit_l_32", 224)
vit_b_16_384, vit_l_16_512 = (
    vision_transformer("vit_b_16", 384),
    vision_transformer("vit_l_16", 512),
)
vit_h_14, vit_h_14_518 = vision_transformer("vit_h_14", 224), vision_transformer("vit_h_14", 518)
