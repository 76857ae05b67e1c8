"""Clips in memory, in batches, and a head's answers to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vidfuse.fusion.base import Head, mask
from vidfuse.fusion.threads import threads_for

GPU_SHARE = 0.25
"""Features move to the GPU as a whole where they take no more than this share of what is free."""
COPIED_AT_ONCE = 256
"""Clips that are copied there together, so that features in a file pass through little memory."""


@dataclass
class Examples:
    """Clips to train on or to predict, as cached features in memory.

    Args:
        features: Features [N, K, D, g, g], usually float16 on the CPU; None where there is `pick`.
        lengths: How many of the K frames of each clip are real [N], int64.
        labels: Class indices [N], int64.
        pick: Chooses frames: (indices [B], generator) → (features [B, T, D, g, g], lengths [B]).
            The generator is None outside training, and then the choice must be a fixed one.
            Without `pick`, a clip is all of its K frames.
        frame_dropout: Share of frames left out at random in training; see `drop_frames`.
        draws: Whether `pick` chooses other frames each time that it gets a generator.
    """

    features: Tensor | None
    lengths: Tensor
    labels: Tensor
    pick: Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]] | None = None
    frame_dropout: float = 0.0
    draws: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, indices: Tensor, device: torch.device, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features [B, T, D, g, g] as float32 and lengths [B] of some clips, on a device."""
        features, lengths = self._of(indices, generator)
        if self.frame_dropout and generator is not None:
            features, lengths = drop_frames(features, lengths, self.frame_dropout, generator)
        # Half as many bytes travel when the conversion comes last.
        return features.to(device).float(), lengths.to(device)

    def resident(self, device: torch.device) -> Examples:
        """The same clips, their features on a GPU where that takes a modest share of it."""
        if device.type != "cuda" or (self.pick and self.draws) or len(self) == 0:
            return self
        parts = torch.arange(len(self)).split(COPIED_AT_ONCE)
        first, _ = self._of(parts[0][:1], None)
        free, _ = torch.cuda.mem_get_info(device)
        if len(self) * first.nbytes > GPU_SHARE * free:
            return self
        features = first.new_empty(len(self), *first.shape[1:], device=device)
        lengths = torch.empty_like(self.lengths)
        for part in parts:
            some, lengths[part] = self._of(part, None)
            features[part.to(device)] = some.to(device)
        return replace(self, features=features, lengths=lengths, pick=None)

    def _of(self, indices: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Features and lengths of some clips, where they lie."""
        if self.pick:
            return self.pick(indices, generator)
        assert self.features is not None
        return self.features[indices], self.lengths[indices]


def drop_frames(
    features: Tensor, lengths: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Leave frames out at random; those that stay keep their order, and one always stays.

    Args:
        features: Features [B, T, D, g, g].
        lengths: How many frames of each clip are real [B].
        share: Probability that a frame is left out.
        generator: Where chance comes from, on the CPU.
    """
    frames = features.shape[1]
    chance = torch.rand(len(lengths), frames, generator=generator)
    chance[~mask(lengths, frames)] = -1.0  # padding never stays
    stays = chance >= min(share, 1.0)
    stays |= chance == chance.max(1, keepdim=True).values
    order = (~stays).to(torch.int8).sort(dim=1, stable=True).indices
    rows = torch.arange(len(lengths))[:, None]
    return features[rows, order], stays.sum(1)


def predict_logits(
    head: Head, examples: Examples, *, device: str | torch.device, batch_size: int
) -> Tensor:
    """Logits [N, C] of all clips, in their order, float32 on the CPU; see `predict_answers`."""
    return predict_answers(head, examples, device=device, batch_size=batch_size)[0]


@torch.inference_mode()
def predict_answers(
    head: Head, examples: Examples, *, device: str | torch.device, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Logits [N, C] of all clips and how many frames each took [N], in their order, on the CPU.

    The head is left in the mode (training or not) it came in.
    """
    device = torch.device(device)
    training = head.training
    head.eval()
    longest = max(examples.lengths.tolist(), default=0)
    try:
        with threads_for(head, longest, batch_size, device):
            answers = [
                head.answer(*examples.batch(indices, device))
                for indices in torch.arange(len(examples)).split(batch_size)
            ]
    finally:
        head.train(training)
    logits, frames = (torch.cat(part) for part in zip(*answers, strict=True))
    return logits.float().cpu(), frames.cpu()
