"""Heads without a notion of time: the baselines that any other head has to beat."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from vidfuse.heads.base import Head, frame_vectors, masked_mean
from vidfuse.heads.layers import read_out


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
    parts: ClassVar[int] = 1
    """Number of vectors of a frame's length P that the pooled vector is made of."""

    def __init__(self, channels: int, grid: int, classes: int, *, dropout: float = 0.5) -> None:
        super().__init__(channels, grid, classes)
        self.dropout = dropout
        size = self.parts * self.frame_size
        self.classifier = nn.Sequential(
            nn.LayerNorm(size), nn.Dropout(dropout), nn.Linear(size, classes)
        )

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """One vector [B, parts·P] from the frames [B, T, P] of each clip."""
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


class Max(_Pooled):
    """The largest value of each feature over all frames: what was there at least once."""

    name = "max"
    order_aware = False
    reversal_aware = False

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The maximum [B, P] of the frames [B, T, P]."""
        return read_out(frames, lengths, "max")


class MeanStd(_Pooled):
    """The average of all frames and their spread around it: how much changes, but not how.

    With the frames x_t [P] of a clip of L frames::

        m = Σ_t x_t / L,  s = √(Σ_t (x_t - m)² / L + ε),  pooled = [m, s]

    The small ε keeps the root's slope finite where nothing changes, as in a clip of one frame.
    """

    name = "mean-std"
    order_aware = False
    reversal_aware = False
    parts = 2

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Mean and standard deviation [B, 2·P] of the frames [B, T, P]."""
        mean = masked_mean(frames, lengths)
        variance = masked_mean((frames - mean[:, None]).square(), lengths)
        return torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)


class Middle(_Pooled):
    """The frame in the middle of the clip: shows how far one look at the scene goes.

    With an even number of frames there is no middle one, and taking either neighbour would make
    the answer depend on the direction of time. It is the average of both: frames (L-1)//2 and
    L//2, which are the same one when L is odd. So reversal leaves this head alone; any other
    order of the frames puts other frames in the middle and does not.
    """

    name = "middle"
    order_aware = True
    reversal_aware = False

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The central frame, or the average of the two central ones, [B, P]."""
        clip = torch.arange(len(frames), device=frames.device)
        return (frames[clip, (lengths - 1) // 2] + frames[clip, lengths // 2]) / 2
