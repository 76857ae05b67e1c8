"""Convolutions and a recurrence side by side."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead, masked_mean
from vidfuse.heads.layers import Cell, new_recurrence, read_out, run
from vidfuse.heads.temporal_convolution import TemporalConvolution

Fusion = Literal["concat", "sum", "gated", "bilinear"]


class Fuse(nn.Module):
    """One vector from two, a and b [size].

    ==========  ==========================================================  ================
    fusion      result                                                      paper
    ==========  ==========================================================  ================
    concat      [a, b]
    sum         a + b
    gated       z ∘ tanh(U a) + (1 - z) ∘ tanh(V b),  z = σ(W [a, b] + d)    Arevalo et al., 2017
    bilinear    tanh(U a) ∘ tanh(V b)                                       Kim et al., 2017
    ==========  ==========================================================  ================

    The last is a bilinear form of both with a matrix of low rank for each unit: every unit of a
    meets every unit of b, in size² weights instead of size³.

    Cost: nothing for concat and sum, 4·size² MACs a clip for gated, 2·size² for bilinear.
    """

    def __init__(self, size: int, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion
        self.size = 2 * size if fusion == "concat" else size
        if fusion in ("gated", "bilinear"):
            self.of_a = nn.Linear(size, size)
            self.of_b = nn.Linear(size, size)
        if fusion == "gated":
            self.gate = nn.Linear(2 * size, size)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """One vector [B, self.size] from two [B, size]."""
        if self.fusion == "concat":
            return torch.cat([a, b], dim=1)
        if self.fusion == "sum":
            return a + b
        bent_a, bent_b = torch.tanh(self.of_a(a)), torch.tanh(self.of_b(b))
        if self.fusion == "bilinear":
            return bent_a * bent_b
        gate = torch.sigmoid(self.gate(torch.cat([a, b], dim=1)))
        return gate * bent_a + (1 - gate) * bent_b


class Parallel(SequenceHead):
    """CNN ∥ RNN: convolutions over time and a recurrence side by side, and their answers fused.

    Both read the projected frames x_t (`Fuse` has what happens to a and b)::

        a = max_t ReLU(b + Σ_j W_j x_{t+j}),  j = -(k-1)/2 .. (k-1)/2     branch=convolution
        a = ReLU(W (Σ_t x_t / L) + b)                                     branch=pooled
        b = Σ_t h_t / L,  with the states h_t of a recurrence

    The convolution finds short patterns wherever they are, the recurrence what builds up over the
    clip. With branch=pooled the one branch is what is seen, the other what happens.

    Cost: that of the recurrence, k·hidden² MACs a frame for the convolution or hidden² a clip
    for the pooled branch, and those of `Fuse`.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        branch: What stands beside the recurrence: a `convolution` over time, or `pooled` frames.
        cell: Kind of recurrent cell.
        hidden: Units of each branch.
        kernel: Frames that the convolution sees at once, odd; `pooled` has none.
        fusion: How the two branches become one vector.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "parallel"
    paper = (
        "Karim et al., LSTM Fully Convolutional Networks for Time Series Classification, IEEE "
        "Access 6, 2018"
    )

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        branch: Literal["convolution", "pooled"] = "convolution",
        cell: Cell = "gru",
        hidden: int = 128,
        kernel: int = 3,
        fusion: Fusion = "concat",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        self.branch = branch
        self.cell = cell
        self.kernel = kernel
        self.fusion = fusion
        self.recurrence = new_recurrence(cell, hidden, hidden)
        self.look = (
            nn.Linear(hidden, hidden)
            if branch == "pooled"
            else TemporalConvolution(hidden, hidden, kernel)
        )
        self.fuse = Fuse(hidden, fusion)
        self.classifier = nn.Linear(self.fuse.size + self.frame_size, classes)

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Both branches in one vector."""
        if self.branch == "pooled":
            seen = F.relu(self.look(masked_mean(sequence, lengths)))
        else:
            seen = read_out(F.relu(self.look(sequence, lengths)), lengths, "max")
        happened = masked_mean(run(self.recurrence, sequence, lengths), lengths)
        fused: Tensor = self.fuse(seen, happened)
        return fused
