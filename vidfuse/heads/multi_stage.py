"""The multi-stage temporal convolutional network, for what happens when in long videos."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads.base import Head, check_sizes, frame_vectors, mask, masked_mean
from vidfuse.heads.temporal_convolution import MOST_LAYERS, TemporalConvolution

SMOOTHING = 0.15  # λ: what the smoothing loss counts beside the cross-entropy
MOST_CHANGE = 4.0  # τ: of a log probability from one frame to the next, that is punished


class DilatedLayer(nn.Module):
    """A residual layer of a stage, figure 2 of Abu Farha and Gall (2019)::

        y = x + Dropout(V ReLU(conv(x)) + b)

    Cost: 4·hidden² MACs a frame.

    Args:
        hidden: Length of each frame's vector.
        dilation: Distance of the three frames that the convolution sees.
        dropout: Share dropped in training.
    """

    def __init__(self, hidden: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolution = TemporalConvolution(hidden, hidden, 3, dilation=dilation)
        self.out = nn.Linear(hidden, hidden)
        self.drop = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """A sequence [B, T, hidden] from another."""
        inner = F.relu(self.convolution(sequence, lengths))
        outer: Tensor = sequence + self.drop(self.out(inner))
        return outer


class Stage(nn.Module):
    """A single-stage TCN: Linear → layers of dilation 1, 2, 4, … → Linear.

    Args:
        inputs: Length of each frame's vector.
        hidden: Length inside.
        layers: Layers; L of them see 2^(L+1) - 1 frames.
        classes: Number of classes C.
        dropout: Share dropped in training behind each layer.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, hidden)
        self.layers = nn.ModuleList(
            DilatedLayer(hidden, 2**layer, dropout) for layer in range(layers)
        )
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Logits of each frame [B, T, C] from a sequence [B, T, inputs]."""
        sequence = self.project(sequence)
        for layer in self.layers:
            sequence = layer(sequence, lengths)
        logits: Tensor = self.classifier(sequence)
        return logits


class MultiStageTCN(Head):
    """Stages of dilated convolutions, each of which corrects the classes that the last one gave.

    The first stage reads the normalised frames x, the others only the probabilities of the stage
    before, so they learn which classes follow each other and how long they last::

        y_1 = Stage_1(Dropout(LayerNorm(x))),  y_s = Stage_s(softmax(y_{s-1}))

    The loss of a frame is the sum over all stages of cross-entropy and λ times the truncated mean
    squared error of log probabilities from one frame to the next, which leaves no flicker
    (equations 5 to 9; λ = .15, τ = 4)::

        Δ_tc = |log y_{t,c} - log y_{t-1,c}|,  L_smooth = mean_tc min(Δ_tc, τ)²

    where y_{t-1} gets no gradient. The answer is the last stage's; that of a clip is the mean of
    its frames' logits.

    Shapes: frames [B, T, P] with P = D·g·g → [B, T, hidden] → [B, T, C] from each stage.

    Cost: P·hidden + stages·layers·4·hidden² MACs a frame.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Length of each frame's vector.
        stages: Stages, one upon the other.
        layers: Layers of each; L of them see 2^(L+1) - 1 frames.
        layer_dropout: Share dropped in training behind each layer, 0..1.
        dropout: Share of the normalised frames dropped in training, 0..1.
    """

    name = "ms-tcn"
    paper = (
        "Abu Farha and Gall, MS-TCN: Multi-Stage Temporal Convolutional Network for Action "
        "Segmentation, CVPR 2019"
    )
    grid = 2
    order_aware = True
    reversal_aware = True
    dense_settings: ClassVar = {}

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 64,
        stages: int = 3,
        layers: int = 7,
        layer_dropout: float = 0.3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(hidden=hidden, stages=stages, layers=layers)
        if layers > MOST_LAYERS:
            raise ValueError(f"layers must be at most {MOST_LAYERS}, not {layers}")
        self.hidden = hidden
        self.layers = layers
        self.layer_dropout = layer_dropout
        self.dropout = dropout
        self.dense = True
        self.norm = nn.LayerNorm(self.frame_size)
        self.drop = nn.Dropout(dropout)
        first = Stage(self.frame_size, hidden, layers, classes, layer_dropout)
        others = [Stage(classes, hidden, layers, classes, layer_dropout) for _ in range(stages - 1)]
        self.all_stages = nn.ModuleList([first, *others])
        self.stages = stages

    def stage_logits(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """The logits of each frame [B, T, C] from each stage."""
        sequence = self.drop(self.norm(frame_vectors(features, lengths)))
        found: list[Tensor] = []
        for stage in self.all_stages:
            found.append(stage(sequence, lengths))
            sequence = found[-1].softmax(2)
        return found

    def frame_parts(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The logits of each frame from the last stage [1, B, T, C]."""
        return self.stage_logits(features, lengths)[-1][None]

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        return masked_mean(self.stage_logits(features, lengths)[-1], lengths)

    def frame_loss(
        self, features: Tensor, lengths: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """A loss for each frame [B, T], over all stages, and the last one's logits [B, C, T]."""
        stages = [each.transpose(1, 2) for each in self.stage_logits(features, lengths)]
        real = mask(lengths, labels.shape[1])
        total = torch.zeros(labels.shape, device=labels.device)
        for logits in stages:
            total = total + F.cross_entropy(
                logits, labels, ignore_index=-1, reduction="none", label_smoothing=label_smoothing
            )
            logs = logits.log_softmax(1)
            change = (logs[:, :, 1:] - logs[:, :, :-1].detach()).clamp(-MOST_CHANGE, MOST_CHANGE)
            smooth = change.square().mean(1) * (real[:, 1:] & (labels[:, 1:] >= 0))
            total = total + SMOOTHING * F.pad(smooth, (1, 0))
        return total, stages[-1]
