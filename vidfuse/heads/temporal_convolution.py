"""Convolutions over time: the layers, and the temporal convolutional network."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads.base import SequenceHead, check_sizes, zero_padding
from vidfuse.heads.layers import Readout, read_out

MOST_LAYERS = 16
"""Each doubles the reach, and what is beyond a clip's ends takes memory."""


class TemporalConvolution(nn.Module):
    """A convolution over time that keeps a sequence's length, zeros beyond both ends of a clip.

    With a kernel of k steps, W_j [out, in], and dilation δ::

        y_t = b + Σ_j W_j x_{t - δ·j},            j = 0..k-1        causal: looks backwards only
        y_t = b + Σ_j W_j x_{t + δ·(j - (k-1)/2)}, j = 0..k-1        else: k must be odd

    Cost: k·in·out MACs a step.

    Args:
        inputs: Length of each step's vector.
        outputs: Length of the result's.
        kernel: Steps k that it sees at once.
        dilation: Distance δ of these.
        causal: Whether it looks backwards only.

    Raises:
        ValueError: The kernel has no middle, and is not causal.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, causal: bool = False
    ) -> None:
        super().__init__()
        check_sizes(kernel=kernel)
        if not causal and kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that it has a middle, not {kernel}")
        reach = (kernel - 1) * dilation
        self.ends = (reach, 0) if causal else (reach // 2, reach // 2)
        self.convolution = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """A sequence [B, T, outputs] from another [B, T, inputs]; that of padding is no zero."""
        steps = F.pad(zero_padding(sequence, lengths).transpose(1, 2), self.ends)
        convolved: Tensor = self.convolution(steps)
        return convolved.transpose(1, 2)


class TemporalBlock(nn.Module):
    """A residual block of two dilated convolutions, figure 1(b) of Bai et al. (2018)::

        u = Dropout(ReLU(conv(LayerNorm(x)))),  y = x + Dropout(ReLU(conv(u)))

    The paper normalises weights; here each frame is normalised in front of the block, which needs
    no statistics over frames and so none over padding.

    Cost: 2·k·hidden² MACs a step.
    """

    def __init__(
        self, hidden: int, kernel: int, dilation: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.first, self.second = (
            TemporalConvolution(hidden, hidden, kernel, dilation=dilation, causal=causal)
            for _ in range(2)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """A sequence [B, T, hidden] from another."""
        inner = self.drop(F.relu(self.first(self.norm(sequence), lengths)))
        outer: Tensor = self.drop(F.relu(self.second(inner, lengths)))
        return sequence + outer


class TCN(SequenceHead):
    """Temporal convolutional network: residual blocks whose dilation doubles from one to the next.

    The projected frames go through `layers` blocks (`TemporalBlock`) of dilation 1, 2, 4, … So L
    causal blocks of kernel k see 1 + 2·(k-1)·(2^L - 1) frames: 29 by default, and with one layer
    more 61. All frames are computed at once.

    Cost: layers·2·k·hidden² MACs a frame behind the projection.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Length of each frame's vector.
        layers: Blocks, one upon the other.
        kernel: Frames that a convolution sees at once.
        causal: Whether convolutions look backwards only (Bai et al.), or both ways (Lea et al.;
            the kernel must be odd).
        readout: What is read behind the last block: the `mean`, the `last` frame, or the `max` of
            each unit, the moment that fits a pattern best.
        block_dropout: Share dropped in training behind each convolution, 0..1.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "tcn"
    paper = (
        "Bai et al., An Empirical Evaluation of Generic Convolutional and Recurrent Networks for "
        "Sequence Modeling, arXiv:1803.01271, 2018; Lea et al., Temporal Convolutional Networks "
        "for Action Segmentation and Detection, CVPR 2017"
    )
    dense_settings: ClassVar = {"readout": "mean", "causal": False, "layers": 6}

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 128,
        layers: int = 3,
        kernel: int = 3,
        causal: bool = True,
        readout: Readout = "max",
        block_dropout: float = 0.1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes, hidden=hidden, dropout=dropout)
        if layers > MOST_LAYERS:
            raise ValueError(f"layers must be at most {MOST_LAYERS}, not {layers}")
        check_sizes(layers=layers)
        self.layers = layers
        self.kernel = kernel
        self.causal = causal
        self.readout = readout
        self.block_dropout = block_dropout
        self.dense = readout == "mean"
        # A kernel of one frame sees no other, so only the last one tells an order.
        self.order_aware = self.reversal_aware = kernel > 1 or readout == "last"
        self.blocks = nn.ModuleList(
            TemporalBlock(hidden, kernel, 2**layer, causal, block_dropout)
            for layer in range(layers)
        )
        self.last_norm = nn.LayerNorm(hidden)
        self.classifier = nn.Linear(hidden + self.frame_size, classes)

    def encode(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The output of the last block [B, T, hidden]."""
        for block in self.blocks:
            sequence = block(sequence, lengths)
        encoded: Tensor = self.last_norm(sequence)
        return encoded

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """The read-out behind the last block [B, hidden]."""
        return read_out(self.encode(sequence, lengths), lengths, self.readout)
