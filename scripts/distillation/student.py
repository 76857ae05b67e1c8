"""The student whose stages imitate those of a teacher, and how its last layer begins."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.adaptation.student import Student, normalise
from vidfuse.adaptation.teacher import GRID
from vidfuse.backbones.grid import pool_maps


class StagedStudent(Student):
    """A student that can be told what its stages should give."""

    def run(
        self, frames: Tensor, hints: Mapping[str, Tensor], *, forced: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features of frames, and how far the stages' maps are off their hints.

        Args:
            frames: ``uint8 [N, S, S, 3]``.
            hints: By stages' names, the map ``[N, D, h, w]`` that each should give.
            forced: Give each stage the hint of the stage before it instead of what the student
                made, so that all stages learn at once and each from its own error alone
                (Wang et al., "Progressive blockwise knowledge distillation", IJCAI 2018; Li et
                al., "Blockwisely supervised neural architecture search", CVPR 2020).

        Returns:
            Features ``[N, width, 4, 4]``, and a squared error by stage.
        """
        maps = normalise(frames).contiguous(memory_format=torch.channels_last)
        errors = {}
        for name, stage in self.network.named_children():
            maps = stage(maps)
            if name in hints:
                errors[name] = F.mse_loss(maps.float(), hints[name])
                maps = hints[name] if forced else maps
        return pool_maps(maps.float(), GRID), errors


@torch.no_grad()
def begin_rectified(norm: nn.BatchNorm2d, mean: Tensor, spread: Tensor) -> None:
    """Let what ReLU leaves of a norm's channels have these means and standard deviations ``[D]``.

    Taking what enters ReLU for normally distributed, with mean r in its own standard deviations:
    what leaves it has the mean m = r Φ(r) + φ(r), and the mean square (r² + 1) Φ(r) + r φ(r).
    """
    r = torch.linspace(-3, 3, 601, dtype=torch.float64)
    below, density = torch.special.ndtr(r), torch.exp(-r * r / 2) / (2 * torch.pi) ** 0.5
    means = r * below + density
    spreads = ((r * r + 1) * below + r * density - means**2).sqrt()
    place = torch.searchsorted(means / spreads, (mean / spread).double()).clamp(0, len(r) - 1)
    scale = (spread / spreads[place]).float()
    norm.weight.copy_(scale)
    norm.bias.copy_(scale * r[place].float())
