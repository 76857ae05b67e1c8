"""A recurrence first, then convolutions over its states."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead
from vidfuse.heads.layers import Cell, Readout, new_recurrence, read_out, run
from vidfuse.heads.temporal_convolution import TemporalConvolution


class RNNCNN(SequenceHead):
    """RNN → CNN: a recurrence, a convolution over its states in time, the maximum over time.

    With the states h_t of the recurrence (`vidfuse.heads.recurrent` has their equations)::

        c_t = ReLU(b + Σ_j W_j h_{t+j}),  j = -(k-1)/2 .. (k-1)/2,  read = max_t c_t

    A state says what has happened so far; a convolution over k of them sees how that changes, and
    the maximum keeps the moment at which it changed most tellingly. Zhou et al. also convolve over
    the units of a state, whose order has no meaning here.

    Cost: that of the recurrence, and k·S·hidden MACs a frame, S = hidden·directions.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        cell: Kind of recurrent cell.
        hidden: Units of the recurrence in each direction, and filters of the convolution.
        kernel: States that the convolution sees at once, odd.
        bidirectional: Whether a second recurrence reads each clip from its end.
        readout: What is read from the c_t: their `mean`, the `last` one, or the `max` of each
            filter.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "rnn-cnn"
    paper = (
        "Zhou et al., Text Classification Improved by Integrating Bidirectional LSTM with "
        "Two-dimensional Max Pooling, COLING 2016"
    )

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        cell: Cell = "gru",
        hidden: int = 128,
        kernel: int = 3,
        bidirectional: bool = False,
        readout: Readout = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        self.cell = cell
        self.kernel = kernel
        self.bidirectional = bidirectional
        self.readout = readout
        self.recurrence = new_recurrence(cell, hidden, hidden, bidirectional=bidirectional)
        states = hidden * (2 if bidirectional else 1)
        self.convolve = TemporalConvolution(states, hidden, kernel)
        self.classifier = nn.Linear(hidden + self.frame_size, classes)

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The read-out of the convolved states [B, hidden]."""
        states = run(self.recurrence, sequence, lengths)
        return read_out(F.relu(self.convolve(states, lengths)), lengths, self.readout)
