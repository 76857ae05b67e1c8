"""A recurrence whose states are weighed by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidfuse.heads.base import mask, masked_mean
from vidfuse.heads.recurrent import LSTM, Inputs


class TemporalAttention(LSTM):
    """LSTM states, averaged with weights that the states themselves ask for.

    With the states h_t [S] of the last layer, equations 5 to 7 of Yang et al. (2016)::

        u_t = tanh(W h_t + b),  α_t = exp(uᵀ u_t) / Σ_s exp(uᵀ u_s),  read = Σ_t α_t h_t

    where the context vector u [S] is learned. A short action in a long clip can
    get most of the weight, and `attention` shows which frames did.

    Cost: that of `lstm`, and S² MACs a frame, S = hidden·directions.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units in each recurrent layer and direction.
        layers: Recurrent layers, one upon the other.
        bidirectional: Whether a second recurrence reads each clip from its end.
        inputs: What the recurrence reads; see `Recurrent`.
        input_dropout: Share of each frame's features that it does not get in training.
        dropout: Share dropped in training before the classifier and between layers, 0..1.
    """

    name = "temporal-attention"
    paper = "Yang et al., Hierarchical Attention Networks for Document Classification, NAACL 2016"
    dense_settings = None

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        inputs: Inputs = "deviations",
        input_dropout: float = 0.5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(
            channels,
            grid,
            classes,
            hidden=hidden,
            layers=layers,
            bidirectional=bidirectional,
            inputs=inputs,
            readout="mean",
            input_dropout=input_dropout,
            dropout=dropout,
        )
        self.dense = False  # what is read of a clip is no plain mean
        size = hidden * (2 if bidirectional else 1)
        self.energy = nn.Sequential(
            nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False)
        )

    def read_and_mean(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean of the states [B, S], and the mean frame [B, D] or [B, P]."""
        states, frames = self.states(features, lengths)
        mean = masked_mean(frames, lengths).clamp(-self.farthest, self.farthest)
        # States of padding may be anything but numbers that are not finite, and have weight 0.
        return (self._weights(states, lengths)[:, None] @ states).squeeze(1), mean

    def attention(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The weight α_t of each frame [B, T], 0 for padding; they sum to 1 in each clip."""
        return self._weights(self.states(features, lengths)[0], lengths)

    def _weights(self, states: Tensor, lengths: Tensor) -> Tensor:
        energies: Tensor = self.energy(states).squeeze(2)
        real = mask(lengths, states.shape[1])
        return energies.masked_fill(~real, -torch.inf).softmax(1)
