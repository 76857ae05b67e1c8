"""The student, what it is asked to predict, and how far off it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.adaptation.teacher import GRID, Teacher
from vidfuse.backbones import IMAGENET_MEAN, IMAGENET_STD
from vidfuse.backbones.grid import pool_maps

TEMPERATURE = 2.0
RIDGE = 1e-2  # of the heads' first weights, relative to the features' variance


class TeacherHead(nn.Module):
    """Predicts one teacher's map from the student's, and measures how far off it is.

    Targets are in standard deviations: of a channel over all positions for maps, of its average
    over positions for pooled features.

    Args:
        width: Channels d of the student; None where its map is the prediction itself.
        teacher: Its map has D channels.
    """

    mean: Tensor
    spread: Tensor
    pooled_spread: Tensor

    def __init__(self, width: int | None, teacher: Teacher) -> None:
        super().__init__()
        self.linear = None if width is None else nn.Conv2d(width, teacher.width, 1)
        self.classifier = teacher.classifier
        for name in ("mean", "spread", "pooled_spread"):
            self.register_buffer(name, torch.ones(teacher.width))

    @torch.no_grad()
    def measure(self, wanted: Tensor) -> None:
        """Take standard deviations from a teacher's maps ``[N, D, 4, 4]``."""
        wanted = wanted.float()
        self.mean.copy_(wanted.mean((0, 2, 3)))
        self.spread.copy_(wanted.std((0, 2, 3)) + 1e-3)
        self.pooled_spread.copy_(wanted.mean((2, 3)).std(0) + 1e-3)

    @torch.no_grad()
    def fit(self, features: Tensor, wanted: Tensor) -> None:
        """Begin with the ridge regression from the student's map to the teacher's.

        Random heads would change the student's features before they say anything (Kumar et al.,
        "Fine-tuning can distort pretrained features", ICLR 2022).

        Args:
            features: The student's maps ``[N, d, 4, 4]``.
            wanted: The teacher's ``[N, D, 4, 4]``.
        """
        self.measure(wanted)
        if self.linear is None:
            return
        inputs, targets = (
            maps.movedim(1, -1).flatten(0, 2) for maps in (features, self.standardise(wanted))
        )
        centre = inputs.mean(0)
        inputs = inputs - centre
        covariance = inputs.T @ inputs / len(inputs)
        covariance.diagonal().add_(RIDGE * covariance.diagonal().mean())
        weight = torch.linalg.solve(covariance, inputs.T @ targets / len(inputs))
        self.linear.weight.copy_(weight.T[:, :, None, None])
        self.linear.bias.copy_(targets.mean(0) - centre @ weight)  # type: ignore[union-attr]

    def forward(self, features: Tensor) -> Tensor:
        """Predicted map ``[N, D, 4, 4]``, in standard deviations."""
        if self.linear is None:
            return self.standardise(features)
        said: Tensor = self.linear(features)
        return said

    def standardise(self, maps: Tensor) -> Tensor:
        """A teacher's map in standard deviations."""
        return (maps.float() - self.mean[:, None, None]) / self.spread[:, None, None]

    def pooled(self, standardised: Tensor) -> Tensor:
        """Averages ``[N, D]`` of such a map, in their own standard deviations."""
        return standardised.mean((2, 3)) * (self.spread / self.pooled_spread)

    def losses(self, said: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Each part of this teacher's loss; see `Student.losses`."""
        said, wanted = said.float(), self.standardise(wanted)
        losses = {
            "map": F.mse_loss(said, wanted),
            "pooled": F.mse_loss(self.pooled(said), self.pooled(wanted)),
        }
        if self.classifier is not None:
            guessed, truth = (
                F.log_softmax(self.classify(maps) / TEMPERATURE, 1) for maps in (said, wanted)
            )
            losses["logits"] = F.kl_div(guessed, truth, log_target=True, reduction="batchmean")
        return losses

    def classify(self, standardised: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of the teacher's classifier for a standardised map."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(standardised.mean((2, 3)) * self.spread + self.mean)
        return logits


class Student(nn.Module):
    """A network with one linear head per teacher, which are dropped after training.

    Args:
        network: Maps normalised images ``[N, 3, S, S]`` to features ``[N, width, h, w]``, in named
            stages.
        width: Channels of the features.
        teachers: Teachers by name.
        copied: Name of the teacher whose channels the features are to be, with no head between.
    """

    def __init__(
        self,
        network: nn.Sequential,
        width: int,
        teachers: Mapping[str, Teacher],
        copied: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        heads = {
            name: TeacherHead(None if name == copied else width, teacher)
            for name, teacher in teachers.items()
        }
        self._heads = nn.ModuleDict(heads)
        self.to(memory_format=torch.channels_last)

    @property
    def heads(self) -> dict[str, TeacherHead]:
        """The head of each teacher."""
        return {name: cast(TeacherHead, head) for name, head in self._heads.items()}

    def measure(self, wanted: Mapping[str, Tensor]) -> None:
        """Take standard deviations from each teacher's maps ``[N, D, 4, 4]``."""
        for name, head in self.heads.items():
            head.measure(wanted[name])

    def forward(self, frames: Tensor) -> Tensor:
        """Features ``[N, width, 4, 4]`` of frames ``uint8 [N, S, S, 3]``."""
        maps = normalise(frames).contiguous(memory_format=torch.channels_last)
        return pool_maps(self.network(maps).float(), GRID)

    def losses(self, features: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each part of the loss, a scalar.

        ``map`` and ``pooled`` are squared errors on the teachers' maps and their averages (FitNets,
        Romero et al. 2015, with several teachers); ``logits`` is the divergence from a teacher's
        softened answer (Hinton et al. 2015) of what its own classifier says of the predicted
        features (Chen et al., "Knowledge distillation with the reused teacher classifier", CVPR
        2022); ``relation`` compares the similarities of the batch's frames to each other (Park et
        al., "Relational knowledge distillation", CVPR 2019; Tung and Mori, ICCV 2019).

        Args:
            features: Of a batch ``[N, width, 4, 4]``.
            wanted: Each teacher's map ``[N, D, 4, 4]``.
        """
        losses: dict[str, Tensor] = {}
        together = []
        for name, head in self.heads.items():
            for part, value in head.losses(head(features), wanted[name]).items():
                losses[part] = losses[part] + value if part in losses else value
            averages = head.pooled(head.standardise(wanted[name]))
            together.append(averages / averages.shape[1] ** 0.5)
        losses["relation"] = F.mse_loss(
            similarities(features.mean((2, 3))), similarities(torch.cat(together, 1))
        )
        return losses


def normalise(frames: Tensor) -> Tensor:
    """Frames ``uint8 [N, S, S, 3]`` as a network's input ``float32 [N, 3, S, S]``."""
    mean, std = (
        torch.tensor(each, device=frames.device).view(3, 1, 1)
        for each in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


def similarities(vectors: Tensor) -> Tensor:
    """Cosines ``[N, N]`` between centred vectors ``[N, D]``."""
    centred = F.normalize(vectors - vectors.mean(0), dim=1)
    return centred @ centred.T
