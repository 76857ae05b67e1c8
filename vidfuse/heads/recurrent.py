"""Heads that read the frames one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead, check_sizes, frame_vectors, mask, masked_mean
from vidfuse.heads.layers import Cell, Readout, attend, new_recurrence, read_out, run

Inputs = Literal["frames", "deviations"]
QUERIES = 4  # moments that a read-out by attention can look for
LEAST_SPREAD = 1e-3  # of a channel, as a share of what is usual
EPSILON = 1e-6


class Recurrent(SequenceHead):
    """LayerNorm → Linear → recurrent cells → maximum over states, beside a mean of the frames.

    A bare last state has to learn the averaging too and, on frozen features, is known to lose to
    the `mean` head; see `SequenceHead`. The maximum keeps what a unit saw whenever it was, which on
    few clips is learned sooner than from the mean of all states.

    Frozen features have a large part in common: the scene, and what the encoder says of any image.
    What tells one moment from the next may be small beside it (a mouth, a gauge, one camera), and
    then a recurrence spends its epochs on the rest. With ``inputs=deviations`` it gets only what
    moves: with frames v_t [P], μ and σ [P] their mean and spread over all training clips, and z̄
    the mean of a clip's standardised frames::

        z_t = (v_t - μ)/σ,  x_t = W Dropout(z_t - z̄) + b

    and z̄ is the mean frame that the classifier sees.

    Shapes: frames [B, T, P] with P = D·g·g → projected [B, T, hidden] → states
    [B, T, hidden·directions] → read-out [B, hidden·directions], of ``attention`` four times as
    long, beside the mean frame [B, P].

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units in each recurrent layer and direction.
        layers: Recurrent layers, one upon the other.
        bidirectional: Whether a second recurrence reads each clip from its end.
        inputs: What the recurrence reads: the `frames`, each normalised alone (LayerNorm), or
            their `deviations`, as above.
        readout: What the classifier sees of the last layer's states: their `mean`, the `last` one
            (backwards that is the one at the first frame), the `max` of each unit, or four
            weighted means of them by `attention`.
        input_dropout: Share of each frame's features that the recurrence does not get in training.
        dropout: Share dropped in training before the classifier and between layers, 0..1.
    """

    cell: ClassVar[Cell]
    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        inputs: Inputs = "frames",
        readout: Literal["attention"] | Readout = "max",
        input_dropout: float = 0.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        check_sizes(layers=layers)
        self.layers = layers
        self.bidirectional = bidirectional
        self.inputs = inputs
        self.readout = readout
        self.input_dropout = input_dropout
        self.drop_inputs = nn.Dropout(input_dropout)
        if inputs == "deviations":
            self.norm = None  # type: ignore[assignment]
            self.register_buffer("mean", torch.zeros(self.frame_size))
            self.register_buffer("spread", torch.ones(self.frame_size))
        self.recurrence = new_recurrence(
            self.cell,
            hidden,
            hidden,
            layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        size = hidden * (2 if bidirectional else 1)
        if readout == "attention":
            self.queries = nn.Linear(size, QUERIES)
            size *= QUERIES
        self.classifier = nn.Linear(size + self.frame_size, classes)

    @torch.no_grad()
    def prepare(self, clips: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take mean and spread of the training clips' frames."""
        if self.inputs == "frames":
            return
        count, total = 0, self.mean.new_zeros(self.frame_size, dtype=torch.float64)
        squares = total.clone()
        for features, lengths in clips:
            frames = features.flatten(2)[mask(lengths, features.shape[1])].double()
            count += len(frames)
            total += frames.sum(0)
            squares += frames.square().sum(0)
        mean = total / count
        spread = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        # What hardly moved in training must not become huge where it does.
        self.spread.copy_(spread + LEAST_SPREAD * spread.square().mean().sqrt() + EPSILON)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        states, mean = self.states(features, lengths)
        if self.readout == "attention":
            read = attend(states, lengths, self.queries)
        else:
            read = read_out(states, lengths, self.readout, bidirectional=self.bidirectional)
        logits: Tensor = self.classifier(self.drop(torch.cat([read, mean], dim=1)))
        return logits

    def states(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, T, S] of the last layer, those of padding meaning nothing, and the mean frame
        [B, P].
        """
        frames = frame_vectors(features, lengths)
        frames = self.norm(frames) if self.norm else (frames - self.mean) / self.spread
        mean = masked_mean(frames, lengths)
        steps = frames - mean[:, None] if self.inputs == "deviations" else frames
        return run(self.recurrence, self.project(self.drop_inputs(steps)), lengths), mean


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
