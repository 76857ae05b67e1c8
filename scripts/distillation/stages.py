"""The maps of a teacher's stages, for a student to imitate stage by stage."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidfuse.backbones.load import Backbone


class StageGuide(nn.Module):
    """The maps behind a teacher's stages, in standard deviations of each channel.

    Args:
        backbone: The teacher up to the last of these stages, by name.
        stages: Which of them the student imitates: names of its own stages to those of the
            teacher, in their order.
    """

    def __init__(self, backbone: Backbone, stages: Mapping[str, str]) -> None:
        super().__init__()
        self.backbone, self.stages = backbone, {its: mine for mine, its in stages.items()}
        self.measured: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def measure(self, frames: Tensor) -> None:
        """Take each channel's mean and standard deviation from frames ``uint8 [N, S, S, 3]``."""
        for name, maps in self._maps(frames).items():
            values = maps.float()
            mean, spread = values.mean((0, 2, 3)), values.std((0, 2, 3)) + 1e-3
            self.measured[name] = mean[:, None, None], spread[:, None, None]

    @torch.no_grad()
    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """By the student's names of stages, the map ``[N, D, h, w]`` to imitate."""
        return {
            name: (maps.float() - self.measured[name][0]) / self.measured[name][1]
            for name, maps in self._maps(frames).items()
        }

    def _maps(self, frames: Tensor) -> dict[str, Tensor]:
        found = {}
        with torch.autocast("cpu", torch.bfloat16):
            maps = (
                frames.permute(0, 3, 1, 2).float() / 255 - self.backbone.mean
            ) / self.backbone.std
            for name, stage in self.backbone.body.named_children():
                maps = stage(maps)
                if name in self.stages:
                    found[self.stages[name]] = maps
        return found
