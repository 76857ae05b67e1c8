"""Heads that read the frames one after the other."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead, check_sizes
from vidfuse.heads.layers import Cell, Readout, new_recurrence, read_out, run


class Recurrent(SequenceHead):
    """LayerNorm → Linear → recurrent cells → maximum over states, beside a mean of the frames.

    A bare last state has to learn the averaging too and, on frozen features, is known to lose to
    the `mean` head; see `SequenceHead`. The maximum keeps what a unit saw whenever it was, which on
    few clips is learned sooner than from the mean of all states.

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

    cell: ClassVar[Cell]

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        readout: Readout = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        check_sizes(layers=layers)
        self.layers = layers
        self.bidirectional = bidirectional
        self.readout = readout
        self.recurrence = new_recurrence(
            self.cell,
            hidden,
            hidden,
            layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        self.classifier = nn.Linear(hidden * (2 if bidirectional else 1) + self.frame_size, classes)

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The read-out of the states."""
        states = run(self.recurrence, sequence, lengths)
        return read_out(states, lengths, self.readout, bidirectional=self.bidirectional)


class RNN(Recurrent):
    """The simple recurrent network of Elman (1990): a state without gates.

    With frame x_t and state h_t [hidden]::

        h_t = tanh(W x_t + U h_{t-1} + b),  h_0 = 0

    Its gradient shrinks or grows with every frame it passes (Bengio et al., 1994), so it suits
    short sequences; the step from here to `gru` or `lstm` shows what gates are worth. A step costs
    a quarter of the LSTM's: 2·hidden² MACs for a frame, layer and direction.
    """

    name = "rnn"
    paper = "Elman, Finding Structure in Time, Cognitive Science 14(2):179-211, 1990"
    cell = "rnn"


class GRU(Recurrent):
    """Gated recurrent units: one state, which an update gate z keeps or replaces.

    With frame x_t, state h_t [hidden] and ∘ the elementwise product::

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
        n_t = tanh(W_n x_t + b_n + r_t ∘ (U_n h_{t-1} + d_n))
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1},  h_0 = 0

    The reset gate r acts behind the product with U_n, as in cuDNN and in the first version of the
    paper; the printed one has U_n (r_t ∘ h_{t-1}). A step costs 6·hidden² MACs for a frame,
    layer and direction, three quarters of the LSTM's.
    """

    name = "gru"
    paper = (
        "Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical "
        "Machine Translation, EMNLP 2014"
    )
    cell = "gru"


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), in its form with forget gates.

    With frame x_t, state h_t and memory c_t [hidden]::

        i_t, f_t, o_t = σ(W x_t + U h_{t-1} + b), each with weights of its own
        c_t = f_t ∘ c_{t-1} + i_t ∘ tanh(W_c x_t + U_c h_{t-1} + b_c),  c_0 = 0
        h_t = o_t ∘ tanh(c_t),  h_0 = 0

    The forget gates start open (`open_forget_gates`). A step costs 8·hidden² MACs for a frame,
    layer and direction.
    """

    name = "lstm"
    paper = "Donahue et al., Long-term Recurrent Convolutional Networks, CVPR 2015"
    cell = "lstm"
