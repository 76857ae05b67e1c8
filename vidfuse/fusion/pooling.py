"""Heads without a notion of time: the baselines that any other head has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidfuse.fusion.base import Head, frame_vectors, masked_mean


class _Pooled(Head):
    """Frames → one vector → LayerNorm → dropout → linear classifier.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        dropout: Share of the pooled vector that is dropped in training, 0..1.
    """

    grid = 1
    paper = ""

    def __init__(self, channels: int, grid: int, classes: int, *, dropout: float = 0.5) -> None:
        super().__init__(channels, grid, classes)
        self.dropout = dropout
        self.classifier = nn.Sequential(
            nn.LayerNorm(self.frame_size), nn.Dropout(dropout), nn.Linear(self.frame_size, classes)
        )

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """One vector [B, P] from the frames [B, T, P] of each clip."""
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        pooled = self.pool(frame_vectors(features, lengths), lengths)
        logits: Tensor = self.classifier(pooled)
        return logits


class Mean(_Pooled):
    """The average of all frames. Strong on frozen features, and blind to order."""

    name = "mean"
    order_aware = False
    reversal_aware = False

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The mean [B, P] of the frames [B, T, P]."""
        return masked_mean(frames, lengths)


class Middle(_Pooled):
    """The picture in the middle of the clip: shows how far one look at the scene goes.

    With an even number of frames there is no middle one, and taking either neighbour would make
    the answer depend on the direction of time. It is the average of both: frames (L-1)//2 and
    L//2, which are the same one when L is odd. So reversal leaves this head alone; any other
    order of the frames puts other pictures in the middle and does not.
    """

    name = "middle"
    order_aware = True
    reversal_aware = False

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The central frame, or the average of the two central ones, [B, P]."""
        clip = torch.arange(len(frames), device=frames.device)
        return (frames[clip, (lengths - 1) // 2] + frames[clip, lengths // 2]) / 2
