"""What heads share that choose the frames they read."""

from __future__ import annotations

from torch import Tensor

from vidfuse.fusion.base import Head
from vidfuse.fusion.episodes import Chooser, Episode
from vidfuse.fusion.frame_source import CachedSource, FrameSource


class ChoosingHead(Head):
    """A head that asks a `FrameSource` for one frame after the other.

    The program gives it cached features in training and live ones at prediction; a subclass
    implements `look`, and reads frames from nowhere else.
    """

    chooses_frames = True

    def look(self, source: FrameSource, chooser: Chooser | None = None) -> Episode:
        """Look at clips until enough was seen.

        Args:
            source: Where the frames of B clips are.
            chooser: Who decides what is looked at; by default the head itself, deterministically.
        """
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B], of which it reads a part."""
        return self.answer(features, lengths)[0]

    def answer(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C], and how many frames each took [B]."""
        episode = self.look(CachedSource(features, lengths))
        return episode.answers, episode.counts
