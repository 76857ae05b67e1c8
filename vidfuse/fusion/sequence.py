"""What heads share that make each frame one vector and relate the vectors to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidfuse.fusion.base import Head, check_sizes, frame_vectors, masked_mean


class SequenceHead(Head):
    """LayerNorm → Linear → what a subclass reads in the sequence, beside a mean of the frames.

    The classifier sees what was read and, past it, the mean of the normalised frames. A linear
    layer on both, concatenated, is the sum of a classifier of each; with zero weights for what was
    read it is the classifier of the `mean` head. So a subclass only has to learn what averaging
    misses, where without the mean it would have to learn the averaging too and, on frozen
    features, is known to lose to it.

    Shapes: frames [B, T, P] with P = D·g·g → projected [B, T, hidden] → read [B, S], beside the
    mean frame [B, P] → logits [B, C].

    Cost: P·hidden products a frame for the projection, which with a small sequence model is most
    of it, and (S + P)·C a clip for the classifier.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units of each frame's projection.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    grid = 2
    order_aware = True
    reversal_aware = True

    def __init__(
        self, channels: int, grid: int, classes: int, *, hidden: int, dropout: float
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(hidden=hidden)
        self.hidden = hidden
        self.dropout = dropout
        self.norm = nn.LayerNorm(self.frame_size)
        self.project = nn.Linear(self.frame_size, hidden)
        self.drop = nn.Dropout(dropout)

    def add_classifier(self, size: int) -> None:
        """Build the classifier of what was read [B, size] and the mean frame.

        Subclasses call it when their own parts are built.
        """
        self.classifier = nn.Linear(size + self.frame_size, self.classes)

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """One vector [B, size] from the projected frames [B, T, hidden], whatever padding holds."""
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        frames = self.norm(frame_vectors(features, lengths))
        read = self.read(self.project(frames), lengths)
        both = torch.cat([read, masked_mean(frames, lengths)], dim=1)
        logits: Tensor = self.classifier(self.drop(both))
        return logits
