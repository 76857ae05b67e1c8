"""Clips that a fit reads, in batches, and a head's predictions for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidfuse.features.table import FeatureTable
from vidfuse.heads.base import Head, mask, threads_for
from vidfuse.video.sampling import EPSILON

GPU_SHARE = 0.25
"""Features move to the GPU as a whole where they take no more than this share of what is free."""
COPIED_AT_ONCE = 256
"""Clips that are copied there together, so that features in a file pass through little memory."""


@dataclass(frozen=True)
class Jitter:
    """The cached frames of N clips, of which training draws other ones each time.

    Attributes:
        table: Features of these clips, and maybe of others.
        rows: Their rows in it [N].
    """

    table: FeatureTable
    rows: Tensor

    def draw(self, indices: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a moment in each of T equal parts of a clip, and take the cached frame shown then.

        Args:
            indices: The clips [B], as indices into ``rows``.
            frames: Their fixed frames [B, T], which clips of no more than T frames keep.
            generator: Source of randomness, on the CPU.

        Returns:
            Frames [B, T] as indices into the table's features.
        """
        rows, count = self.rows[indices].numpy(), frames.shape[1]
        inside = torch.rand(len(rows), count, generator=generator, dtype=torch.float64)
        # Of a long clip, the frames at the centres of m parts of each part are cached: a moment
        # before the first of them would show a frame of the part before.
        lengths = torch.from_numpy(self.table.lengths[rows])[:, None]
        cells = lengths // count
        centres = ((inside * cells).floor() + 0.5) / cells
        inside = torch.where(lengths % count == 0, centres, inside)
        starts = torch.from_numpy(self.table.starts[rows])[:, None]
        span = torch.from_numpy(self.table.ends[rows])[:, None] - starts
        moments = starts + (torch.arange(count) + inside) * span / count
        times = torch.from_numpy(self.table.times[rows])
        shown = torch.searchsorted(times, moments + EPSILON, right=True) - 1
        drawn = torch.from_numpy(self.table.firsts[rows])[:, None] + shown.clamp(min=0)
        return torch.where(lengths > count, drawn, frames)


@dataclass
class Examples:
    """Clips to train on or to predict.

    Attributes:
        features: Frames of these clips, and maybe of others ``[F, D, g, g]``, usually float16.
        frames: The frames that are read of each clip, as indices into ``features`` [N, T], int64.
        lengths: How many of the T frames are real [N], int64; the rest is padding.
        labels: Class indices [N], int64; or those of all frames [N, T], -1 for a frame without
            one.
        jitter: Draws other frames in training; None reads the same ones each time.
        order: The order in which the frames of each clip are read, as columns [N, T]; None is that
            of time.
        frame_dropout: Share of frames left out at random in training; see `drop_frames`.
        views: The views of each clip, one of which training draws each time, as indices into
            ``frames``, ``lengths`` and ``order``, which have M >= N rows then [N, V]; None reads
            the clip itself.
    """

    features: Tensor
    frames: Tensor
    lengths: Tensor
    labels: Tensor
    jitter: Jitter | None = None
    order: Tensor | None = None
    frame_dropout: float = 0.0
    views: Tensor | None = None

    @classmethod
    def stacked(cls, features: Tensor, lengths: Tensor, labels: Tensor) -> Examples:
        """Make examples of features [N, T, D, g, g], of which all real frames are read."""
        frames = torch.arange(features.shape[0] * features.shape[1]).view(features.shape[:2])
        return cls(features.flatten(0, 1), frames, lengths, labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, indices: Tensor, device: torch.device, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Make a batch of some clips.

        Args:
            indices: The clips [B].
            device: Where the batch is wanted.
            generator: Source of randomness in training; None reads fixed frames, and all of them.

        Returns:
            Features [B, T, D, g, g] as float32 and lengths [B].
        """
        if generator is not None and self.views is not None:
            drawn = torch.randint(self.views.shape[1], (len(indices),), generator=generator)
            indices = self.views[indices, drawn]
        frames, lengths = self.frames[indices], self.lengths[indices]
        if generator is not None and self.jitter is not None:
            frames = self.jitter.draw(indices, frames, generator)
        if self.order is not None:
            frames = frames.gather(1, self.order[indices])
        if generator is not None and self.frame_dropout:
            frames, lengths = drop_frames(frames, lengths, self.frame_dropout, generator)
        # Half as many bytes travel when the conversion comes last.
        return self.features[frames].to(device).float(), lengths.to(device)

    def resident(self, device: torch.device) -> Examples:
        """The same clips, their features on the GPU where that takes a modest share of it."""
        if self.jitter is not None or len(self) == 0:
            return self
        clips, frames = self.frames.shape
        free, _ = torch.cuda.mem_get_info(device)
        if clips * frames * self.features[0].nbytes > GPU_SHARE * free:
            return self
        features = self.features.new_empty(clips * frames, *self.features.shape[1:], device=device)
        for start in range(0, clips, COPIED_AT_ONCE):
            some = self.frames[start : start + COPIED_AT_ONCE].flatten()
            first = start * frames
            features[first : first + len(some)] = self.features[some].to(device)
        return replace(self, features=features, frames=torch.arange(clips * frames).view(clips, -1))


def examples_of(
    table: FeatureTable,
    rows: Sequence[int],
    labels: Tensor,
    views: Sequence[Sequence[int]] | None = None,
) -> Examples:
    """Take clips from a table, whose features stay where they are.

    Args:
        table: Features of these clips, and maybe of others.
        rows: Their rows in it.
        labels: Their class indices [N].
        views: Rows of other views of each, of all equally many, among which and the clip itself
            training draws.
    """
    index = np.asarray(rows, np.int64)
    drawn = None
    if views is not None:
        index = np.concatenate([index, np.asarray(views, np.int64).ravel()])
        # The first of each clip's is itself.
        drawn = torch.arange(len(index)).split([len(rows), len(index) - len(rows)])
        drawn = torch.cat([drawn[0][:, None], drawn[1].view(len(rows), -1)], 1)
    lengths = table.chosen_lengths[index]
    width = int(lengths.max(initial=0))
    frames = torch.from_numpy(table.firsts[index, None] + table.chosen[index, :width])
    features = torch.from_numpy(table.features)
    jitter = None
    if table.jitter and (table.lengths[index] > width).any():
        jitter = Jitter(table, torch.from_numpy(index))
    return Examples(features, frames, torch.from_numpy(lengths), labels, jitter, views=drawn)


def drop_frames(
    frames: Tensor, lengths: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Leave frames out at random; those that stay keep their order, and one always stays.

    Args:
        frames: Frames of each clip, or their indices [B, T, ...].
        lengths: How many of them are real [B].
        share: Probability that a frame is left out.
        generator: Source of randomness, on the CPU.

    Returns:
        The frames that stay, in front of those left out [B, T, ...], and their number [B].
    """
    count = frames.shape[1]
    chance = torch.rand(len(lengths), count, generator=generator)
    chance[~mask(lengths, count)] = -1.0  # padding never stays
    stays = chance >= min(share, 1.0)
    stays |= chance == chance.max(1, keepdim=True).values
    order = (~stays).to(torch.int8).sort(dim=1, stable=True).indices
    return frames[torch.arange(len(lengths))[:, None], order], stays.sum(1)


def predict(
    head: Head, examples: Examples, *, device: str | torch.device, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Predict all clips, in their order.

    The head is left in the mode (training or not) it came in.

    Returns:
        Logits [N, C], float32, and the number of frames that each took [N], on the CPU.
    """
    parts, frames = predict_parts(head, examples, device=device, batch_size=batch_size)
    return parts.sum(0), frames


@torch.inference_mode()
def predict_parts(
    head: Head, examples: Examples, *, device: str | torch.device, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Predict all clips as `predict` does, the parts of the logits apart: [K, N, C] and [N].

    Where labels are those of frames, the logits are too, of all that have one: [K, M, C].
    """
    of_frames = examples.labels.ndim == 2
    device = torch.device(device)
    training = head.training
    head.eval()
    try:
        with threads_for(head, examples.frames.shape[1], batch_size, device):
            batches = []
            for indices in torch.arange(len(examples)).split(batch_size):
                features, lengths = examples.batch(indices, device)
                if of_frames:
                    known = examples.labels[indices].to(device) >= 0
                    batches.append((head.frame_parts(features, lengths)[:, known], lengths))
                else:
                    batches.append(head.logit_parts(features, lengths))
    finally:
        head.train(training)
    parts = torch.cat([part for part, _ in batches], dim=1)
    return parts.float().cpu(), torch.cat([frames for _, frames in batches]).cpu()
