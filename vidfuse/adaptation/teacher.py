"""The network that an encoder learns from, frozen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidfuse.adaptation.views import VIEW_SIZE, resize
from vidfuse.backbones.grid import pool_maps
from vidfuse.backbones.load import Backbone
from vidfuse.video.frames import Pixels

GRID = 4  # positions a side of the maps that are matched
BATCH = 50


class Teacher(nn.Module):
    """A frozen network whose last map the student learns to predict.

    Args:
        backbone: Maps frames ``uint8 [N, S, S, 3]`` to features ``[N, D, h, w]``.
        width: Channels D of them.
        classifier: Maps their average ``[N, D]`` to logits; None where there is none.
        size: Side S of the frames it looks at, in pixels.
        narrow: Whether it computes in bfloat16.
    """

    def __init__(
        self,
        backbone: Backbone,
        width: int,
        classifier: nn.Linear | None = None,
        size: int = VIEW_SIZE,
        *,
        narrow: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.width, self.classifier = backbone, width, classifier
        self.size, self.narrow = size, narrow
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, views: Tensor) -> Tensor:
        """Its map ``[N, D, 4, 4]`` of views ``uint8 [N, S, S, 3]`` of any side."""
        with torch.autocast(views.device.type, torch.bfloat16, enabled=self.narrow):
            maps = self.backbone(resize(views, self.size))
        return pool_maps(maps, GRID)


@torch.inference_mode()
def answers(teacher: Teacher, views: Pixels) -> NDArray[np.float16]:
    """Maps ``float16 [N, D, 4, 4]`` that a teacher sees in views ``uint8 [N, S, S, 3]``."""
    device, found = teacher.backbone.mean.device, []
    for at in range(0, len(views), BATCH):
        maps = teacher(torch.from_numpy(np.array(views[at : at + BATCH])).to(device))
        found.append(maps.cpu().numpy().astype(np.float16))
    return np.concatenate(found)
