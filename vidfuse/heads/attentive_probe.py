"""The attentive probe: learned queries that attend to all cells of all frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vidfuse.heads.attention import EncoderBlock, RelativePositionBias, feed_forward
from vidfuse.heads.base import Head, check_sizes, frame_vectors, mask, masked_mean
from vidfuse.heads.layers import PositionEmbedding


class CrossAttentionBlock(nn.Module):
    """Learned queries that attend to tokens, then two layers for each query alone.

    For tokens Z [N, hidden], queries q_1, …, q_n [hidden], and each of h heads, with d = hidden/h,
    products K, V [N, d] of U = LayerNorm(Z) with matrices of its own, and a head's own part
    q_j [d] of each query::

        a_j = softmax(K q_j / √d) [N],  o_j = Vᵀ a_j [d]

    and, with the o_j of all heads side by side::

        y_j = q_j + W o_j + b,  y_j ← LayerNorm(y_j + W_2 GELU(W_1 LayerNorm(y_j) + b_1) + b_2)

    A matrix for the queries, as in Vaswani et al. (2017), is left out: they are learned
    themselves. Keys have no bias, which would cancel in the softmax. Padding gets no weight.

    Cost: 2·hidden² + 2·n·hidden MACs a token, and 5·n·hidden² a clip.

    Args:
        hidden: Length of a token and of a query; W_1 doubles it.
        heads: Attention heads h; divides `hidden`.
        queries: Number n of queries.
        dropout: Share of each part's output that is dropped in training.

    Raises:
        ValueError: `hidden` is no multiple of `heads`, or a size is below 1.
    """

    def __init__(self, hidden: int, heads: int, queries: int, dropout: float) -> None:
        super().__init__()
        check_sizes(heads=heads, queries=queries)
        if hidden % heads:
            raise ValueError(f"hidden={hidden} is no multiple of heads={heads}")
        self.heads = heads
        self.queries = nn.Parameter(torch.randn(queries, hidden))
        self.token_norm = nn.LayerNorm(hidden)
        self.keys_values = nn.Linear(hidden, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden)
        self.transform = feed_forward(hidden)
        self.last_norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs y [B, n, hidden] and weights a [B, h, n, N] of tokens [B, N, hidden].

        `real` [B, N] is true where a token is not padding.
        """
        split = self.keys_values(self.token_norm(tokens)).unflatten(2, (2, self.heads, -1))
        keys, values = split.permute(2, 0, 3, 1, 4)  # each [B, h, N, d]
        queries = self.queries.unflatten(1, (self.heads, -1)).transpose(0, 1)  # [h, n, d]
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[2])
        weights = scores.masked_fill(~real[:, None, None], -torch.inf).softmax(3)
        attended = self.out((weights @ values).transpose(1, 2).flatten(2))
        outputs = self.queries + self.drop(attended)
        return self.last_norm(outputs + self.drop(self.transform(outputs))), weights


class AttentiveProbe(Head):
    """Learned queries that attend to all cells of all frames.

    The probe by which frozen video encoders are evaluated. In V-JEPA (Bardes et al., 2024), as in
    the attentional pooling of CoCa (Yu et al., 2022), it is one block of cross-attention; in
    V-JEPA 2 (Assran et al., 2025) three blocks of self-attention between the tokens stand before
    it. A token is one of the K = g² cells of one frame. With the cells x_{t,i} [D] of the frames'
    LayerNorm over P values, and learned positions in time p_t (`PositionEmbedding`) and in space
    c_i [hidden]::

        z_{t,i} = W_i x_{t,i} + c_i + p_t
        z ← EncoderBlock(z)                          blocks - 1 times
        y_1, …, y_n = CrossAttentionBlock(z),  read = [y_1, …, y_n]

    and the classifier sees what was read beside the mean of all frames and cells, as in
    `convlstm`. Cells of a convolutional encoder know less of where they are than the tokens of
    those papers, and clips are fewer. Hence three additions: this mean; a matrix W_i for each
    cell, so that the tokens of a frame add up to a projection of the whole frame; and biases that
    all blocks of self-attention share (`RelativePositionBias`, the same for all cells of two
    frames), without which two blocks learn little more on `sample_data` than one.

    Cost, with N = T·K tokens: D·hidden + 2·hidden² + 2·n·hidden MACs a token, 5·n·hidden² a clip,
    and (blocks - 1)·(8·hidden² + 2·N·hidden) a token for self-attention, which grows with the
    square of frames and cells.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Length of each token's vector.
        queries: Learned queries n. The classifier sees the output of each.
        blocks: Blocks, one upon the other: cross-attention in the last, self-attention in those
            before it.
        heads: Attention heads in each; divides `hidden`.
        block_dropout: Share of each block's outputs that is dropped in training, 0..1.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "attentive-probe"
    grid = 2
    order_aware = True
    reversal_aware = True
    paper = (
        "Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from "
        "Video, TMLR 2024; Assran et al., V-JEPA 2: Self-Supervised Video Models Enable "
        "Understanding, Prediction and Planning, arXiv:2506.09985, 2025"
    )

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 128,
        queries: int = 4,
        blocks: int = 2,
        heads: int = 4,
        block_dropout: float = 0.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(hidden=hidden, blocks=blocks)
        self.hidden = hidden
        self.queries = queries
        self.blocks = blocks
        self.heads = heads
        self.block_dropout = block_dropout
        self.dropout = dropout
        self.norm = nn.LayerNorm(self.frame_size)
        self.project = nn.Parameter(torch.empty(grid * grid, channels, hidden))
        # As the layer that would project the whole frame. Positions are learned from fewer clips
        # if tokens do not begin with more of what was seen than of where.
        bound = 1 / math.sqrt(self.frame_size)
        nn.init.uniform_(self.project, -bound, bound)
        self.positions = PositionEmbedding(hidden)
        # As large as the positions in time, and for the same reason.
        self.places = nn.Parameter(torch.randn(grid * grid, hidden) * 0.5)
        self.cross_attention = CrossAttentionBlock(hidden, heads, queries, block_dropout)
        self.self_attention = nn.ModuleList(
            EncoderBlock(hidden, heads, block_dropout) for _ in range(blocks - 1)
        )
        if blocks > 1:
            self.distances = RelativePositionBias(heads)
        self.drop = nn.Dropout(dropout)
        self.mean_norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(queries * hidden + channels, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        frames = frame_vectors(features, lengths)
        read, _ = self._attend(frames, lengths)
        mean = masked_mean(frames, lengths).unflatten(1, (self.channels, -1)).mean(2)
        both = torch.cat([read, self.mean_norm(mean)], dim=1)
        logits: Tensor = self.classifier(self.drop(both))
        return logits

    def attention(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Weight of each cell [B, T, g, g], the mean over queries and heads.

        The weights of a clip sum to 1; those of padding are 0.
        """
        _, weights = self._attend(frame_vectors(features, lengths), lengths)
        maps: Tensor = weights.mean((1, 2)).unflatten(1, (-1, *features.shape[3:]))
        return maps

    def _attend(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, n·hidden] and weights [B, h, n, N] of the queries, for frames [B, T, P]."""
        steps, cells = frames.shape[1], len(self.places)
        by_cell = self.norm(frames).unflatten(2, (self.channels, cells))
        projected = torch.einsum("btdk,kdh->btkh", by_cell, self.project)
        positions = self.positions(lengths, steps)[:, :, None] + self.places
        tokens = (projected + positions).flatten(1, 2)
        real = mask(lengths, steps).repeat_interleave(cells, 1)
        if self.self_attention:
            biases = self.distances(steps)
            biases = biases.repeat_interleave(cells, 1).repeat_interleave(cells, 2)
        for block in self.self_attention:
            tokens = block(tokens, real, biases)
        outputs, weights = self.cross_attention(tokens, real)
        return outputs.flatten(1), weights
