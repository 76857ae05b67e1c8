"""Features of many clips side by side, and the choice of frames among those that are cached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidfuse.errors import UserError
from vidfuse.features.store import Entry
from vidfuse.video.sampling import EPSILON, Sampling, Timeline


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Cached features of N clips, of at most K frames each.

    Attributes:
        features: ``float16 [N, K, D, g, g]``; a shorter clip's last frame is repeated.
        lengths: ``int64 [N]``, how many frames are a clip's own.
        chosen: ``int64 [N, T]``, the frames that a head reads when nothing is drawn at random:
            the same that prediction would decode.
        chosen_lengths: ``int64 [N]``, how many of them are a clip's own.
        times: ``float64 [N, K]`` presentation times; infinite behind a clip's own frames.
        starts: ``float64 [N]``, when each clip's first picture is shown.
        ends: ``float64 [N]``, when each clip's last picture leaves the screen.
        jitter: Whether training draws one cached frame from each of T equal parts.
    """

    features: Tensor
    lengths: Tensor
    chosen: Tensor
    chosen_lengths: Tensor
    times: Tensor
    starts: Tensor
    ends: Tensor
    jitter: bool

    @classmethod
    def stack(cls, entries: list[Entry], sampling: Sampling, frames: int) -> FeatureTable:
        """Put entries side by side.

        Args:
            entries: Features of the clips.
            sampling: The rule that chooses ``frames`` of a clip's cached frames.
            frames: T, how many frames a head reads.

        Raises:
            UserError: The clips' features differ in shape (a native grid follows the picture).
        """
        shapes = {entry.features.shape[1:] for entry in entries}
        if len(shapes) > 1:
            raise UserError(f"features of different shapes cannot be batched: {sorted(shapes)}")
        longest = max(len(entry.features) for entry in entries)
        features = np.empty((len(entries), longest, *shapes.pop()), np.float16)
        times = np.full((len(entries), longest), np.inf)
        chosen = np.zeros((len(entries), frames), np.int64)
        chosen_lengths = np.zeros(len(entries), np.int64)
        for row, entry in enumerate(entries):
            count = len(entry.features)
            features[row, :count] = entry.features
            features[row, count:] = entry.features[-1]
            times[row, :count] = entry.times
            clip = Timeline(entry.times, entry.info.end, start=entry.info.start)
            # What decoding chose already (every N-th picture, say) is not chosen from again.
            picks = np.arange(count) if count <= frames else sampling.pick(clip, frames)
            chosen[row] = picks[-1]
            chosen[row, : len(picks)] = picks
            chosen_lengths[row] = len(picks)
        return cls(
            features=torch.from_numpy(features),
            lengths=torch.tensor([len(entry.features) for entry in entries]),
            chosen=torch.from_numpy(chosen),
            chosen_lengths=torch.from_numpy(chosen_lengths),
            times=torch.from_numpy(times),
            starts=torch.tensor([entry.info.start for entry in entries], dtype=torch.float64),
            ends=torch.tensor([entry.info.end for entry in entries], dtype=torch.float64),
            jitter=sampling.mode == "segment",
        )

    def pick(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Features ``float16 [B, T, D, g, g]`` and lengths ``[B]`` of some clips.

        Args:
            rows: ``int64 [B]``, which clips.
            generator: Draws the frames of ``segment`` in training; None takes the fixed ones.
        """
        columns = self.chosen[rows]
        if generator is not None and self.jitter:
            columns = torch.where(
                (self.lengths[rows] > columns.shape[1])[:, None],
                self._draw(rows, columns.shape[1], generator),
                columns,
            )
        return self.features[rows[:, None], columns], self.chosen_lengths[rows]

    def _draw(self, rows: Tensor, frames: int, generator: torch.Generator) -> Tensor:
        """One random moment in each of T equal parts, and the cached frame on screen then."""
        inside = torch.rand(len(rows), frames, generator=generator, dtype=torch.float64)
        # Of a long clip, the frames at the centres of m parts of each part are cached: a moment
        # before the first of them would show a frame of the part before.
        lengths = self.lengths[rows][:, None]
        cells = lengths // frames
        centres = ((inside * cells).floor() + 0.5) / cells
        inside = torch.where(lengths % frames == 0, centres, inside)
        start = self.starts[rows][:, None]
        span = self.ends[rows][:, None] - start
        moments = start + (torch.arange(frames) + inside) * span / frames
        shown = torch.searchsorted(self.times[rows], moments + EPSILON, right=True) - 1
        return shown.clamp(min=0)
