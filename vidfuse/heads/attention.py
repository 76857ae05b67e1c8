"""Heads in which frames attend to frames: self-attention, and the transformer's encoder."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead, check_sizes, mask, masked_mean
from vidfuse.heads.layers import PositionEmbedding, Readout, read_out

REACH = 8
"""Frames further away than this count as so far away."""
FIRST_FALL = 2.0
"""Fall of the attention logits for each frame that a frame is further away."""


class RelativePositionBias(nn.Module):
    """A learned bias for how many frames lie between two, in either direction, for each head.

    R_ts = r_{s - t} (as in Raffel et al., 2020, without their bins); beyond 8 frames it is that of
    8. The biases start with a slope for each head (as in Press et al., 2022): the first hears most
    of the frame before, the second of the frame behind, the third and fourth of those two away, and
    so on. With positions alone, frames learn to look for their neighbours only from far more clips
    than most people have.

    Args:
        heads: Number of attention heads h.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        sought = torch.tensor([(head // 2 + 1) * (-1) ** (head + 1) for head in range(heads)])
        away = (torch.arange(-REACH, REACH + 1) - sought[:, None]).abs()
        self.table = nn.Parameter(-FIRST_FALL * away)

    def forward(self, frames: int, tokens: int = 0) -> Tensor:
        """R [h, T, T] of a sequence of tokens, which are at no distance from any, and frames."""
        numbers = torch.arange(frames, device=self.table.device)
        steps = (numbers - numbers[:, None]).clamp(-REACH, REACH) + REACH
        return F.pad(self.table[:, steps], (tokens, 0, tokens, 0))


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, section 3.2 of Vaswani et al. (2017).

    For a sequence X [T, hidden] and each of h heads, with d = hidden/h, products Q, K, V [T, d] of
    X with matrices of its own, and biases R [T, T] of pairs of steps (`RelativePositionBias`)::

        A = softmax(Q Kᵀ / √d + R),  Y = A V

    and the output is [Y_1, …, Y_h] W + b. Rows of A sum to 1 over the real steps; what is behind
    the end of a clip gets no weight. Keys have no bias, which would cancel in the softmax.

    Cost: 4·hidden² MACs a step for the matrices, and 2·T·hidden for Q Kᵀ and A V.

    Args:
        hidden: Length of each step's vector.
        heads: Number of heads; divides `hidden`.

    Raises:
        ValueError: `hidden` is no multiple of `heads`.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        check_sizes(heads=heads)
        if hidden % heads:
            raise ValueError(f"hidden={hidden} is no multiple of heads={heads}")
        self.heads = heads
        self.queries_keys_values = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, sequence: Tensor, real: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
        """Output [B, T, hidden] and weights A [B, h, T, T] of a sequence [B, T, hidden].

        `real` [B, T] is true where a step is not padding; the biases are R [h, T, T].
        """
        split = self.queries_keys_values(sequence).unflatten(2, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each [B, h, T, d]
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3]) + biases
        weights = scores.masked_fill(~real[:, None, None], -torch.inf).softmax(3)
        return self.out((weights @ values).transpose(1, 2).flatten(2)), weights


class SelfAttention(SequenceHead):
    """One layer of self-attention over the frames, which positions tell apart.

    With the projected frames x_t [hidden], learned positions p_t (`PositionEmbedding`), and biases
    by distance::

        u_t = LayerNorm(x_t + p_t),  y_t = u_t + Attention(u)_t,  s_t = GELU(W y_t + b)

    and the largest value of each unit of s_t is read, beside the mean frame. Without positions the
    frames would be a set; with them each can look for what was before it and after it, however far
    away.

    Cost: 5·hidden² + 2·T·hidden MACs a frame behind the projection. Where a recurrence takes T
    steps one after the other, all of it is done at once.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Length of each frame's vector.
        heads: Attention heads; divides `hidden`.
        readout: What is read from the s_t: their `mean`, the `last` one, or the `max` of each unit.
            By attention a single frame can tell what happened, and a maximum finds it.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "self-attention"
    paper = "Vaswani et al., Attention Is All You Need, NeurIPS 2017"
    dense_settings: ClassVar = {"readout": "mean"}

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 128,
        heads: int = 4,
        readout: Readout = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        self.heads = heads
        self.readout = readout
        self.dense = readout == "mean"
        self.positions = PositionEmbedding(hidden)
        self.attention_norm = nn.LayerNorm(hidden)
        self.attend = Attention(hidden, heads)
        self.distances = RelativePositionBias(heads)
        self.transform = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU())
        self.classifier = nn.Linear(hidden + self.frame_size, classes)

    def encode(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The transformed frames [B, T, hidden]."""
        steps = sequence.shape[1]
        sequence = self.attention_norm(sequence + self.positions(lengths, steps))
        attended, _ = self.attend(sequence, mask(lengths, steps), self.distances(steps))
        transformed: Tensor = self.transform(sequence + attended)
        return transformed

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The read-out of the transformed frames [B, hidden]."""
        return read_out(self.encode(sequence, lengths), lengths, self.readout)


def feed_forward(hidden: int) -> nn.Sequential:
    """LayerNorm → Linear → GELU → Linear, for each step alone; inside it is twice as wide."""
    return nn.Sequential(
        nn.LayerNorm(hidden),
        nn.Linear(hidden, 2 * hidden),
        nn.GELU(),
        nn.Linear(2 * hidden, hidden),
    )


class EncoderBlock(nn.Module):
    """A block of the transformer's encoder: attention, then two layers for each step alone.

    With the normalisation in front of each part, where it trains without a warm-up of its own
    (Xiong et al., 2020)::

        x ← x + Attention(LayerNorm(x)),  x ← x + W_2 GELU(W_1 LayerNorm(x) + b_1) + b_2

    Cost: 8·hidden² + 2·T·hidden MACs a step.

    Args:
        hidden: Length of each step's vector; W_1 doubles it.
        heads: Attention heads.
        dropout: Share of each part's output that is dropped in training.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden)
        self.attend = Attention(hidden, heads)
        self.transform = feed_forward(hidden)
        self.drop = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, real: Tensor, biases: Tensor) -> Tensor:
        """A sequence [B, T, hidden] from another; for the rest see `Attention`."""
        attended, _ = self.attend(self.attention_norm(sequence), real, biases)
        sequence = sequence + self.drop(attended)
        transformed: Tensor = self.drop(self.transform(sequence))
        return sequence + transformed


class Transformer(SequenceHead):
    """A small transformer encoder with a class token.

    A learned vector, the class token, stands before the projected frames, to which learned
    positions are added (`PositionEmbedding`). All blocks (`EncoderBlock`) share the biases of
    `RelativePositionBias`. After the last the token has collected from the
    frames what the classifier reads, beside the mean frame.

    Cost: layers·(8·hidden² + 2·T·hidden) MACs a frame behind the projection.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Length of each frame's vector.
        layers: Blocks, one upon the other.
        heads: Attention heads in each; divides `hidden`.
        readout: What is read: the class `token`, or the `mean` of the frames behind the last block.
        block_dropout: Share of each block's outputs that is dropped in training, 0..1.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "transformer"
    paper = (
        "Dosovitskiy et al., An Image Is Worth 16x16 Words: Transformers for Image Recognition at "
        "Scale, ICLR 2021; Vaswani et al., Attention Is All You Need, NeurIPS 2017"
    )
    legacy_settings: ClassVar = {"readout": "token"}
    dense_settings: ClassVar = {"readout": "mean"}

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 128,
        layers: int = 2,
        heads: int = 4,
        readout: Literal["token", "mean"] = "token",
        block_dropout: float = 0.1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        check_sizes(layers=layers)
        self.layers = layers
        self.heads = heads
        self.readout = readout
        self.dense = readout == "mean"
        self.block_dropout = block_dropout
        self.token = nn.Parameter(torch.randn(hidden) * 0.02)
        self.positions = PositionEmbedding(hidden)
        self.distances = RelativePositionBias(heads)
        self.blocks = nn.ModuleList(
            EncoderBlock(hidden, heads, block_dropout) for _ in range(layers)
        )
        self.last_norm = nn.LayerNorm(hidden)
        self.classifier = nn.Linear(hidden + self.frame_size, classes)

    def encode(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The frames behind the last block [B, T, hidden]."""
        return self._behind_blocks(sequence, lengths)[:, 1:]

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The class token [B, hidden] behind the last block, or the mean of the frames there."""
        if self.readout == "mean":
            return masked_mean(self.encode(sequence, lengths), lengths)
        return self._behind_blocks(sequence, lengths)[:, 0]

    def _behind_blocks(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The class token and the frames [B, 1 + T, hidden], normalised."""
        sequence = sequence + self.positions(lengths, sequence.shape[1])
        token = self.token.expand(len(sequence), 1, -1)
        sequence = torch.cat([token, sequence], dim=1)
        real = mask(lengths + 1, sequence.shape[1])
        biases = self.distances(sequence.shape[1] - 1, tokens=1)
        for block in self.blocks:
            sequence = block(sequence, real, biases)
        normalised: Tensor = self.last_norm(sequence)
        return normalised
