"""Heads that weigh the channels and positions of each map before a recurrence reads it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidfuse.heads.base import Head, check_sizes, frame_vectors, masked_mean
from vidfuse.heads.layers import Cell, Readout, new_recurrence, read_out, run


class _Recalibrated(Head):
    """Maps → normalisation → gates → 1×1 convolution → recurrence, beside a mean of the maps.

    Gates leave a map its shape and multiply its values by numbers from 0 to 1. What is left is
    brought to `width` channels and read, positions and all, by a recurrence, since weighed frames
    alone say nothing of their order. The classifier sees the read-out of the states beside the
    mean of the weighed maps, as in `convlstm`.

    Shapes: features [B, T, D, g, g] → weighed, the same → [B, T, width·g²] → states
    [B, T, hidden] → read-out [B, hidden], beside the mean [B, D] → logits [B, C].
    """

    order_aware = True
    reversal_aware = True

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        width: int,
        hidden: int,
        cell: Cell,
        readout: Readout,
        dropout: float,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(width=width, hidden=hidden)
        self.width = width
        self.hidden = hidden
        self.cell = cell
        self.readout = readout
        self.dropout = dropout
        # One group, as in convlstm: what is seen must not depend on where.
        self.norm = nn.GroupNorm(1, channels)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.recurrence = new_recurrence(cell, width * grid * grid, hidden)
        self.drop = nn.Dropout(dropout)
        self.mean_norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(hidden + channels, classes)

    def normalised(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The normalised maps [B, T, D, g, g], whatever padding holds."""
        frames = frame_vectors(features, lengths).view_as(features)
        maps: Tensor = self.norm(frames.flatten(0, 1)).view_as(frames)
        return maps

    def weigh(self, maps: Tensor, lengths: Tensor) -> Tensor:
        """The maps [B, T, D, g, g], each value times its gates."""
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        maps = self.weigh(self.normalised(features, lengths), lengths)
        reduced = self.reduce(maps.flatten(0, 1)).flatten(1).unflatten(0, maps.shape[:2])
        read = read_out(run(self.recurrence, reduced, lengths), lengths, self.readout)
        mean = self.mean_norm(masked_mean(maps.mean((3, 4)), lengths))
        logits: Tensor = self.classifier(self.drop(torch.cat([read, mean], dim=1)))
        return logits


def bottleneck(inputs: int, channels: int, reduction: int) -> nn.Sequential:
    """Linear → ReLU → Linear, inputs → channels/reduction → channels."""
    check_sizes(reduction=reduction)
    # A narrow bottleneck of few channels may have no unit that is ever above 0.
    inner = max(8, channels // reduction)
    return nn.Sequential(nn.Linear(inputs, inner), nn.ReLU(), nn.Linear(inner, channels))


class ChannelAttention(_Recalibrated):
    """Squeeze-and-excitation: each frame's channels are weighed by what the frame, or clip, holds.

    With the normalised map X_t [D, g, g], its mean over positions z_t [D] (the squeeze) and the
    mean m [D] of all z_t, equations 2 to 4 of Hu et al. (2018)::

        s_t = σ(W_2 ReLU(W_1 q_t + b_1) + b_2),  X_t ← s_t ∘ X_t

        q_t = z_t       squeeze=frame: weights for each frame of its own
        q_t = m         squeeze=clip: the same for all frames
        q_t = [z_t, m]  squeeze=both: what is in this frame against what is in the clip

    Cost: 2·D²/reduction MACs a frame for the gates (3·D²/reduction with both), D·width·g² for
    the 1×1 convolution, and those of the recurrence.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        squeeze: What the weights are made from: the `frame`, the `clip`, or `both`.
        reduction: How many times fewer units than channels W_1 leaves; at least 8 stay.
        width: Channels that the 1×1 convolution leaves.
        hidden: Units of the recurrence.
        cell: Kind of recurrent cell.
        readout: What is read from the states: their `mean`, the `last` one, or the `max` of each
            unit.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "channel-attention"
    grid = 2
    paper = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018"

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        squeeze: Literal["frame", "clip", "both"] = "both",
        reduction: int = 8,
        width: int = 64,
        hidden: int = 128,
        cell: Cell = "gru",
        readout: Readout = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(
            channels,
            grid,
            classes,
            width=width,
            hidden=hidden,
            cell=cell,
            readout=readout,
            dropout=dropout,
        )
        self.squeeze = squeeze
        self.reduction = reduction
        self.excite = bottleneck(channels * (2 if squeeze == "both" else 1), channels, reduction)

    def weigh(self, maps: Tensor, lengths: Tensor) -> Tensor:
        """The maps [B, T, D, g, g], each channel times its gate."""
        return maps * self.gates(maps, lengths)[..., None, None]

    def gates(self, maps: Tensor, lengths: Tensor) -> Tensor:
        """The gates s_t [B, T, D] of normalised maps [B, T, D, g, g]."""
        squeezed = maps.mean((3, 4))
        if self.squeeze != "frame":
            clip = masked_mean(squeezed, lengths)[:, None].expand_as(squeezed)
            squeezed = clip if self.squeeze == "clip" else torch.cat([squeezed, clip], dim=2)
        return torch.sigmoid(self.excite(squeezed))


class CBAM(_Recalibrated):
    """Convolutional block attention: first the channels of each map are weighed, then its places.

    With the normalised map X [D, g, g] of a frame, one two-layer network MLP for both squeezes and
    means and maxima over positions (i) or channels (d), equations 2 and 3 of Woo et al. (2018)::

        M_c = σ(MLP(mean_i X) + MLP(max_i X)),           X ← M_c ∘ X    M_c [D]
        M_s = σ(conv_k([mean_d X, max_d X])),            X ← M_s ∘ X    M_s [g, g]

    The paper's kernel is 7 for maps of up to 56×56; a map of 4×4 has no more than 4 to see.

    Cost: 4·D²/reduction MACs a frame for M_c, 2·k²·g² for M_s, D·width·g² for the 1×1
    convolution, and those of the recurrence.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        reduction: How many times fewer units than channels the MLP has; at least 8 stay.
        kernel: Side of the convolution that makes M_s, odd.
        width: Channels that the 1×1 convolution leaves.
        hidden: Units of the recurrence.
        cell: Kind of recurrent cell.
        readout: What is read from the states: their `mean`, the `last` one, or the `max` of each
            unit.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "cbam"
    grid = 4
    paper = "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018"

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        reduction: int = 8,
        kernel: int = 3,
        width: int = 32,
        hidden: int = 128,
        cell: Cell = "gru",
        readout: Readout = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(
            channels,
            grid,
            classes,
            width=width,
            hidden=hidden,
            cell=cell,
            readout=readout,
            dropout=dropout,
        )
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be an odd number, not {kernel}")
        self.reduction = reduction
        self.kernel = kernel
        self.excite = bottleneck(channels, channels, reduction)
        self.see = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def weigh(self, maps: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """The maps [B, T, D, g, g], each value times the gates of its channel and its place."""
        maps = self._weigh_channels(maps)
        return maps * self._places(maps)[:, :, None]

    def attention(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The gate M_s of each place in each frame [B, T, g, g], 0..1, and 0 for padding."""
        maps = self._weigh_channels(self.normalised(features, lengths))
        places = self._places(maps)
        return frame_vectors(places, lengths).view_as(places)

    # `max` over one dimension rather than `amax`: its gradient is a third to a fifth of the work.

    def _weigh_channels(self, maps: Tensor) -> Tensor:
        squeezed = self.excite(maps.mean((3, 4))) + self.excite(maps.flatten(3).max(3).values)
        return maps * torch.sigmoid(squeezed)[..., None, None]

    def _places(self, maps: Tensor) -> Tensor:
        both = torch.stack([maps.mean(2), maps.max(2).values], dim=2).flatten(0, 1)
        return torch.sigmoid(self.see(both)).view(*maps.shape[:2], *maps.shape[3:])
