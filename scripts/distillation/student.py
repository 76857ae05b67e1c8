"""The student, what it is asked to predict, and how far off it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.backbones.thin_resnet import WIDTHS, thin_resnet

CHANNELS = {"resnet18": 256, "squeezenet": 512, "mobilenet": 1280}
HINT_CHANNELS = 128
CLASSES = 1000
TEMPERATURE = 2.0


class Student(nn.Module):
    """The network with one linear head per teacher, which are dropped after training.

    Args:
        statistics: Mean and spread of each teacher's channels.
    """

    def __init__(self, statistics: dict[str, dict[str, Tensor]]) -> None:
        super().__init__()
        self.network = thin_resnet(norm=True)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(WIDTHS[-1], width, 1) for name, width in CHANNELS.items()}
        )
        self.hint = nn.Conv2d(WIDTHS[1], HINT_CHANNELS, 1)
        self.logits = nn.Linear(WIDTHS[-1], CLASSES)
        self.statistics = statistics

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """What the heads say of images ``[N, 3, 128, 128]``; maps are in standardised units."""
        middle = self.network[:3](images)
        features = self.network[3:](middle)
        said = {name: head(features) for name, head in self.heads.items()}
        pooled = features.mean((2, 3))
        return said | {
            "hint": self.hint(F.avg_pool2d(middle, 2)),
            "logits": self.logits(pooled),
            "pooled": pooled,
        }

    def losses(self, said: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each part of the loss, a scalar.

        ``map`` and ``pooled`` are squared errors on the teachers' maps and their averages in
        units of each channel's own spread (FitNets, Romero et al. 2015, with several teachers);
        ``hint`` is the same half-way up; ``logits`` is the divergence from SqueezeNet's softened
        answer (Hinton et al. 2015); ``relation`` compares the similarities of the batch's frames
        to each other (Park et al., "Relational knowledge distillation", 2019; Tung & Mori 2019).
        """
        losses = {"map": torch.zeros(()), "pooled": torch.zeros(())}
        together = []
        for name in CHANNELS:
            scale = self.statistics[name]
            target = wanted[name].float() - scale["mean"][:, None, None]
            spread = scale["map_std"]
            guess = said[name].float()
            losses["map"] = losses["map"] + F.mse_loss(guess, target / spread[:, None, None])
            averages = target.mean((2, 3)) / scale["pooled_std"]
            ratio = spread / scale["pooled_std"]
            losses["pooled"] = losses["pooled"] + F.mse_loss(guess.mean((2, 3)) * ratio, averages)
            together.append(averages / averages.shape[1] ** 0.5)
        scale = self.statistics["hint"]
        hint = (wanted["hint"].float() - scale["mean"][:, None, None]) / scale["map_std"][
            :, None, None
        ]
        losses["hint"] = F.mse_loss(said["hint"].float(), hint)
        losses["logits"] = F.kl_div(
            F.log_softmax(said["logits"].float() / TEMPERATURE, 1),
            F.log_softmax(wanted["logits"].float() / TEMPERATURE, 1),
            log_target=True,
            reduction="batchmean",
        )
        losses["relation"] = F.mse_loss(
            similarities(said["pooled"].float()), similarities(torch.cat(together, 1))
        )
        return losses


def similarities(vectors: Tensor) -> Tensor:
    """Cosines ``[N, N]`` between centred vectors ``[N, D]``."""
    centred = F.normalize(vectors - vectors.mean(0), dim=1)
    return centred @ centred.T
