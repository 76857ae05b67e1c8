"""Heads that read the frames one after the other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidfuse.fusion.base import Head, frame_vectors, masked_mean


class Recurrent(Head):
    """LayerNorm → Linear → recurrent cells → mean over states, beside a mean of the frames.

    The classifier sees the mean state and, past the recurrence, the mean of the normalised
    frames. A linear layer on both, concatenated, is the sum of a classifier of each; with zero
    weights for the states it is the classifier of the `mean` head. So the recurrence only has to
    learn what averaging misses, where a bare last state has to learn the averaging too and, on
    frozen features, is known to lose to it.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units in each recurrent layer and direction.
        layers: Recurrent layers, one upon the other.
        bidirectional: Whether a second recurrence reads each clip from its end.
        dropout: Share dropped in training before the classifier and between layers, 0..1.
    """

    grid = 2
    order_aware = True
    reversal_aware = True
    cell: ClassVar[type[nn.LSTM | nn.GRU | nn.RNN]]

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        for what, size in (("hidden", hidden), ("layers", layers)):
            if size < 1:
                raise ValueError(f"{what} must be at least 1, not {size}")
        self.hidden = hidden
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.norm = nn.LayerNorm(self.frame_size)
        self.project = nn.Linear(self.frame_size, hidden)
        self.drop = nn.Dropout(dropout)
        self.recurrence = self.cell(
            hidden,
            hidden,
            num_layers=layers,
            bidirectional=bidirectional,
            # With one layer there is nothing in between, and torch would warn.
            dropout=dropout if layers > 1 else 0.0,
            batch_first=True,
        )
        states = hidden * (2 if bidirectional else 1)
        self.classifier = nn.Linear(states + self.frame_size, classes)
        self.initialise()

    def initialise(self) -> None:
        """Change torch's initial weights where a kind of cell is known to start better."""

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        frames = self.norm(frame_vectors(features, lengths))
        states = self.states(self.project(frames), lengths)
        read = torch.cat([masked_mean(states, lengths), masked_mean(frames, lengths)], dim=1)
        logits: Tensor = self.classifier(self.drop(read))
        return logits

    def states(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """States of the last layer [B, T, hidden·directions]; those of padding mean nothing."""
        # Reading forwards, padding comes after every state that counts. Reading backwards it
        # comes before, and must be packed away.
        if not self.bidirectional or bool((lengths == sequence.shape[1]).all()):
            states: Tensor = self.recurrence(sequence)[0]
            return states
        packed = pack_padded_sequence(
            sequence, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.recurrence(packed)[0], batch_first=True, total_length=sequence.shape[1]
        )
        return states


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), in its form with forget gates.

    Forget gates start half open by default, which halves what a state remembers at each frame.
    Their bias starts at 1 instead (Gers et al., 2000; Jozefowicz et al., 2015, section 2.2).
    """

    name = "lstm"
    paper = "Donahue et al., Long-term Recurrent Convolutional Networks, CVPR 2015"
    cell = nn.LSTM

    def initialise(self) -> None:
        """Open the forget gates."""
        with torch.no_grad():
            for name, parameter in self.recurrence.named_parameters():
                # torch stacks the gates as input, forget, cell, output, and adds two biases.
                if name.startswith("bias_ih"):
                    parameter[self.hidden : 2 * self.hidden] = 1.0
                elif name.startswith("bias_hh"):
                    parameter[self.hidden : 2 * self.hidden] = 0.0
