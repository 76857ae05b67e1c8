"""A recurrence that chooses where in each frame to look."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vidfuse.heads.base import Head, check_sizes, frame_vectors, masked_mean
from vidfuse.heads.layers import Readout, open_forget_gates, read_out


class SpatialAttention(Head):
    """Soft attention over the positions of each frame's map, driven by an LSTM's state.

    Each frame is normalised and brought to `width` channels by a 1×1 convolution, and each of the
    K = g² positions gets a learned vector, so that a glimpse says where it was taken. With the
    positions x_{t,i} [width] of frame t, equations 4 to 6 of Sharma et al. (2015)::

        e_{t,i} = w_iᵀ h_{t-1}                       scores=state: the place alone
        e_{t,i} = w_iᵀ h_{t-1} + x_{t,i}ᵀ (V h_{t-1} + v) / √width    scores=content: what is there
        l_{t,i} = exp(e_{t,i}) / Σ_j exp(e_{t,j}),   x_t = Σ_i l_{t,i} x_{t,i}
        h_t, c_t = LSTM(x_t, h_{t-1}, c_{t-1})
        h_0 = tanh(W_h m + b_h),  c_0 = tanh(W_c m + b_c),  m = mean of all x_{t,i}

    The paper scores places by the state alone; what stands there enters as in Xu et al. (2015),
    and positions are this program's addition. The read-out of the states goes to the classifier
    beside the mean of all frames and positions, as in `convlstm`. The paper's penalty on places
    that are never looked at is left out: it is no part of the logits.

    Cost: D·width·K MACs a frame for the 1×1 convolution, 2·K·width for scores and glimpse,
    K·hidden + hidden·width for the state's part of the scores and 4·(width + hidden)·hidden for
    the LSTM. Frames wait for each other, so it is slow for its size.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        width: Channels that the 1×1 convolution leaves.
        hidden: Units of the LSTM.
        scores: What decides where to look: the `state` alone, or the `content` of each position
            too.
        readout: What is read from the states: their `mean`, the `last` one, or the `max` of each
            unit.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "spatial-attention"
    grid = 4
    order_aware = True
    reversal_aware = True
    paper = "Sharma et al., Action Recognition Using Visual Attention, arXiv:1511.04119, 2015"

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        width: int = 128,
        hidden: int = 128,
        scores: Literal["state", "content"] = "content",
        readout: Readout = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(width=width, hidden=hidden)
        self.width = width
        self.hidden = hidden
        self.scores = scores
        self.readout = readout
        self.dropout = dropout
        # One group, as in convlstm: what is seen must not depend on where.
        self.norm = nn.GroupNorm(1, channels)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.places = nn.Parameter(torch.randn(grid * grid, width) * 0.5)
        self.score_places = nn.Linear(hidden, grid * grid, bias=False)
        if scores == "content":
            self.score_content = nn.Linear(hidden, width)
        self.first_state = nn.Linear(width, 2 * hidden)
        self.cell = nn.LSTMCell(width, hidden)
        open_forget_gates(self.cell)
        self.drop = nn.Dropout(dropout)
        self.mean_norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(hidden + channels, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        frames = frame_vectors(features, lengths).view_as(features)
        states, _ = self.look(frames, lengths)
        read = read_out(states, lengths, self.readout)
        mean = self.mean_norm(masked_mean(frames.mean((3, 4)), lengths))
        logits: Tensor = self.classifier(self.drop(torch.cat([read, mean], dim=1)))
        return logits

    def attention(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Attention maps of the frames [B, T, g, g]; a map sums to 1, that of padding to 0."""
        frames = frame_vectors(features, lengths).view_as(features)
        _, weights = self.look(frames, lengths)
        maps = weights.unflatten(2, features.shape[3:])
        return frame_vectors(maps, lengths).view_as(maps)

    def look(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, T, hidden] and attention [B, T, K]; those of padding mean nothing."""
        reduced = self.reduce(self.norm(frames.flatten(0, 1))).flatten(2).transpose(1, 2)
        positions = reduced.unflatten(0, frames.shape[:2]) + self.places  # [B, T, K, width]
        start = torch.tanh(self.first_state(masked_mean(positions.mean(2), lengths)))
        hidden, cell = start.chunk(2, dim=1)
        states, weights = [], []
        for at_frame in positions.unbind(1):
            energies = self.score_places(hidden)
            if self.scores == "content":
                wanted = self.score_content(hidden)[..., None] / math.sqrt(self.width)
                energies = energies + (at_frame @ wanted).squeeze(2)
            weight = energies.softmax(1)
            glimpse = (weight[:, None] @ at_frame).squeeze(1)
            hidden, cell = self.cell(glimpse, (hidden, cell))
            states.append(hidden)
            weights.append(weight)
        return torch.stack(states, dim=1), torch.stack(weights, dim=1)
