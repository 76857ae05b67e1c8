"""Heads that read the frames one after the other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidfuse.fusion.base import Head, frame_vectors, masked_mean
from vidfuse.fusion.readout import Readout, read_out


class Recurrent(Head):
    """LayerNorm → Linear → recurrent cells → mean over states, beside a mean of the frames.

    The classifier sees the states' read-out and, past the recurrence, the mean of the normalised
    frames. A linear layer on both, concatenated, is the sum of a classifier of each; with zero
    weights for the states it is the classifier of the `mean` head. So the recurrence only has to
    learn what averaging misses, where a bare last state has to learn the averaging too and, on
    frozen features, is known to lose to it.

    Shapes: frames [B, T, P] with P = D·g·g → projected [B, T, hidden] → states
    [B, T, hidden·directions] → read-out [B, hidden·directions], beside the mean frame [B, P].

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units in each recurrent layer and direction.
        layers: Recurrent layers, one upon the other.
        bidirectional: Whether a second recurrence reads each clip from its end.
        readout: What the classifier sees of the last layer's states: their `mean`, the `last` one
            (backwards that is the one at the first frame), or the `max` of each unit.
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
        readout: Readout = "mean",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        for what, size in (("hidden", hidden), ("layers", layers)):
            if size < 1:
                raise ValueError(f"{what} must be at least 1, not {size}")
        self.hidden = hidden
        self.layers = layers
        self.bidirectional = bidirectional
        self.readout = readout
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
        read = read_out(states, lengths, self.readout, bidirectional=self.bidirectional)
        both = torch.cat([read, masked_mean(frames, lengths)], dim=1)
        logits: Tensor = self.classifier(self.drop(both))
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


class RNN(Recurrent):
    """The simple recurrent network of Elman (1990): a state without gates.

    With frame x_t and state h_t [hidden]::

        h_t = tanh(W x_t + U h_{t-1} + b),  h_0 = 0

    Its gradient shrinks or grows with every frame it passes (Bengio et al., 1994), so it suits
    short sequences; the step from here to `gru` or `lstm` shows what gates are worth. A step costs
    a quarter of the LSTM's: 2·hidden² products for a frame, layer and direction.
    """

    name = "rnn"
    paper = "Elman, Finding Structure in Time, Cognitive Science 14(2):179-211, 1990"
    cell = nn.RNN


class GRU(Recurrent):
    """Gated recurrent units: one state, which an update gate z keeps or replaces.

    With frame x_t, state h_t [hidden] and ∘ the elementwise product::

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
        n_t = tanh(W_n x_t + b_n + r_t ∘ (U_n h_{t-1} + d_n))
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1},  h_0 = 0

    The reset gate r acts behind the product with U_n, as in cuDNN and in the first version of the
    paper; the printed one has U_n (r_t ∘ h_{t-1}). A step costs 6·hidden² products for a frame,
    layer and direction, three quarters of the LSTM's.
    """

    name = "gru"
    paper = (
        "Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical "
        "Machine Translation, EMNLP 2014"
    )
    cell = nn.GRU


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), in its form with forget gates.

    With frame x_t, state h_t and memory c_t [hidden]::

        i_t, f_t, o_t = σ(W x_t + U h_{t-1} + b), each with weights of its own
        c_t = f_t ∘ c_{t-1} + i_t ∘ tanh(W_c x_t + U_c h_{t-1} + b_c),  c_0 = 0
        h_t = o_t ∘ tanh(c_t),  h_0 = 0

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
