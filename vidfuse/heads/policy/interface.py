"""The interface of heads that select the frames they read."""

from __future__ import annotations

from torch import Tensor

from vidfuse.heads.base import Head
from vidfuse.heads.policy.episodes import ActionSelector, Episode
from vidfuse.heads.policy.source import CachedSource, FrameSource


class FrameSelectingHead(Head):
    """A head that asks a `FrameSource` for one frame after the other.

    The program gives it cached features in training and live ones at prediction; a subclass
    implements `observe`, and reads frames from nowhere else.
    """

    selects_frames = True

    def observe(self, source: FrameSource, selector: ActionSelector | None = None) -> Episode:
        """Observe frames of clips until enough was seen.

        Args:
            source: Where the frames of B clips are.
            selector: Decides what is observed; by default the head itself, deterministically.
        """
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B], of which it reads a part."""
        return self.forward_with_cost(features, lengths)[0]

    def forward_with_cost(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C], and how many frames each took [B]."""
        episode = self.observe(CachedSource(features, lengths))
        return episode.answers, episode.counts
