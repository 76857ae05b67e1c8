"""Heads that read the frames one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead, State, check_sizes, frame_vectors, mask, masked_mean
from vidfuse.heads.layers import Cell, Readout, new_recurrence, read_out, run

Inputs = Literal["frames", "deviations"]
QUERIES = 4  # moments that a read-out by attention can look for
LEAST_SPREAD = 1e-3  # of a channel, as a share of what is usual
MOST_SPREADS = 10.0  # that a feature may be away: what never moved in training may do so later
EPSILON = 1e-6


class Recurrent(SequenceHead):
    """Linear → recurrent cells → weighted means of the states, beside a mean of the frames.

    Frozen features have a large part in common: the scene, and what the encoder says of any image.
    What tells one moment from the next may be small beside it (a mouth, a gauge, one camera), and
    a recurrence that reads whole frames spends its epochs on the rest. So it gets only what moves,
    and the mean frame has the rest. With frames v_t [P], v̄ their mean in a clip, v̂ [D] that of its
    cells, σ [P] the spread of frames and μ̂ and σ̂ [D] mean and spread of v̂ over all training
    clips::

        x_t = W Dropout((v_t - v̄)/σ) + b,  m = (v̂ - μ̂)/σ̂

    both cut at ±10. With ``inputs=frames`` it reads whole frames, each normalised alone
    (LayerNorm), and m [P] is their mean. Four moments are read of the states h_t [S], each by a
    learned query q_k and b_k::

        α_kt = exp(q_kᵀ h_t + b_k) / Σ_s exp(q_kᵀ h_s + b_k),  read_k = Σ_t α_kt h_t

    as in Lin et al., A Structured Self-Attentive Sentence Embedding, ICLR 2017, but linear.

    Shapes: frames [B, T, P] with P = D·g·g → projected [B, T, hidden] → states
    [B, T, hidden·directions] → read-out [B, hidden·directions], of ``attention`` four times as
    long, beside the mean frame [B, D].

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units in each recurrent layer and direction.
        layers: Recurrent layers, one upon the other.
        bidirectional: Whether a second recurrence reads each clip from its end.
        inputs: What the recurrence reads: whole `frames`, or their `deviations`, as above.
        readout: What the classifier sees of the last layer's states: their `mean`, the `last` one
            (backwards that is the one at the first frame), the `max` of each unit, or four
            weighted means of them by `attention`.
        input_dropout: Share of each frame's features that the recurrence does not get in training.
        dropout: Share dropped in training before the classifier and between layers, 0..1.
    """

    cell: ClassVar[Cell]
    lr = 3e-3
    legacy_settings: ClassVar = {"inputs": "frames", "input_dropout": 0.0}
    dense_settings: ClassVar[Mapping[str, Any] | None] = {"readout": "mean", "bidirectional": True}
    spread: Tensor
    clip_mean: Tensor
    clip_spread: Tensor

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
        readout: Literal["attention"] | Readout = "attention",
        input_dropout: float = 0.5,
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
        self.farthest = MOST_SPREADS if inputs == "deviations" else math.inf
        if inputs == "deviations":
            self.norm = None  # type: ignore[assignment]
            self.register_buffer("spread", torch.ones(self.frame_size))
            self.register_buffer("clip_mean", torch.zeros(channels))
            self.register_buffer("clip_spread", torch.ones(channels))
            self.mean_size = channels
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
        self.dense = readout == "mean"
        # Deviations are from the mean of all frames, of which the later ones are not yet there.
        self.causal = self.dense and inputs == "frames" and not bidirectional
        self.classifier = nn.Linear(size + self.mean_size, classes)

    @torch.no_grad()
    def prepare(self, clips: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the spread of the training clips' frames, and mean and spread of their means."""
        if self.inputs == "frames":
            return
        count, total = 0, self.spread.new_zeros(self.frame_size, dtype=torch.float64)
        squares, means = total.clone(), []
        for features, lengths in clips:
            frames = frame_vectors(features, lengths)
            count += int(lengths.sum())
            total += frames.sum((0, 1), dtype=torch.float64)
            squares += frames.double().square().sum((0, 1))
            means.append(masked_mean(frames, lengths))
        of_clips = torch.cat(means).view(-1, self.channels, self.grid**2).mean(2)
        spreads = {
            self.spread: (squares / count - (total / count).square()).clamp(min=0).sqrt(),
            self.clip_spread: of_clips.std(0, correction=0),
        }
        self.clip_mean.copy_(of_clips.mean(0))
        for mine, spread in spreads.items():
            # What hardly moved in training must not become huge where it does.
            mine.copy_(spread + LEAST_SPREAD * spread.square().mean().sqrt() + EPSILON)

    def read_and_mean(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The read-out of the states [B, S], and the mean frame [B, D] or [B, P]."""
        states, frames = self.states(features, lengths)
        mean = masked_mean(frames, lengths).clamp(-self.farthest, self.farthest)
        if self.readout == "attention":
            padding = ~mask(lengths, states.shape[1])[..., None]
            weights = self.queries(states).masked_fill(padding, -torch.inf).softmax(1)
            return (weights.transpose(1, 2) @ states).flatten(1), mean
        return read_out(states, lengths, self.readout, bidirectional=self.bidirectional), mean

    def read_frames(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The state at each frame [B, T, S], and the frame itself [B, T, D] or [B, T, P]."""
        states, frames = self.states(features, lengths)
        return states, frames.clamp(-self.farthest, self.farthest)

    def step(self, features: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The logits [B, C] of the next frame [B, D, g, g], and the state after it; see `Head`."""
        if not self.causal:
            raise NotImplementedError(
                f"{self.name} reads frames one at a time with readout=mean, inputs=frames and "
                f"bidirectional=false, not {self.settings}"
            )
        frames = self.norm(features.flatten(1))[:, None]
        states, state = self.recurrence(self.project(self.drop_inputs(frames)), state)
        return self.classify_frames(states, frames).sum(0)[:, 0], state

    def states(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, T, hidden·directions] of the last layer, and the frames as they stand beside
        them, normalised [B, T, P] or (v̂_t - μ̂)/σ̂ [B, T, D]; those of padding mean nothing.
        """
        frames = frame_vectors(features, lengths)
        if self.inputs == "deviations":
            mean = masked_mean(frames, lengths)
            steps = ((frames - mean[:, None]) / self.spread).clamp(-MOST_SPREADS, MOST_SPREADS)
            cells = frames.unflatten(2, (self.channels, self.grid**2)).mean(3)
            frames = (cells - self.clip_mean) / self.clip_spread
        else:
            steps = frames = self.norm(frames)
        return run(self.recurrence, self.project(self.drop_inputs(steps)), lengths), frames


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
