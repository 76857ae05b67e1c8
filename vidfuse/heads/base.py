"""The contract of a fusion head, and what its implementations share."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """Reads the features of a clip's frames and gives one logit for each class.

    A subclass sets the class attributes below, takes its settings as keyword-only constructor
    arguments with defaults, and keeps each of them as an attribute of the same name (so that
    `settings` can write them to a model file). `forward` must not let padding reach the logits:
    a clip's logits are the same alone and in any padded batch, whatever the padding holds.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' spatial grid; any g >= 1 must work.
        classes: Number of classes C.

    Raises:
        ValueError: A size or a setting is out of range.
    """

    name: ClassVar[str]
    """The name in the registry and on the command line."""
    grid: int | Literal["native"]
    """On the class, the grid this head reads unless told otherwise ("native": the backbone's own
    map, not pooled); on an instance, the side g it was built for."""
    order_aware: bool
    """Whether another order of the same frames can change the logits. On the class as the head is
    unless told otherwise, on an instance as its settings have it."""
    reversal_aware: bool
    """Whether playing the clip backwards can change the logits; likewise."""
    paper: ClassVar[str]
    """Where the head is published, or "" for a plain baseline."""
    extra: ClassVar[str | None] = None
    """The extra that it needs, as in `pip install "vidfuse[graph]"`, or None."""
    requires: ClassVar[tuple[str, ...]] = ()
    """The modules in that extra, which only an instance may import."""
    chooses_frames: ClassVar[bool] = False
    """Whether it chooses its frames, through a `FrameSource`, and gets no others."""
    price: float = 0.0
    """What looking at one frame costs, as a share of accuracy."""

    def __init__(self, channels: int, grid: int, classes: int) -> None:
        super().__init__()
        check_sizes(channels=channels, grid=grid, classes=classes)
        self.channels = channels
        self.grid = grid
        self.classes = classes
        self.frame_size = channels * grid * grid
        """Length P = D·g·g of the vector that describes one frame."""

    @classmethod
    def missing(cls) -> list[str]:
        """The modules it requires that are not installed."""
        return [name for name in cls.requires if find_spec(name) is None]

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g], where lengths [B] (int64, 1..T) count the
        frames of each clip and what follows them is padding.
        """
        raise NotImplementedError

    def answer(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] as `forward` gives them, and how many frames each took [B]."""
        return self(features, lengths), lengths

    def loss(
        self, features: Tensor, lengths: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """What training makes small: a loss for each clip [B], and the logits [B, C].

        Cross-entropy, unless a head learns by other means too. Randomness comes from torch's global
        generators, which the training loop seeds for every epoch.

        Args:
            features: Features [B, T, D, g, g].
            lengths: How many of the T frames are real [B].
            labels: Class indices [B].
            label_smoothing: Share of the target that is spread over all classes.
        """
        logits = self(features, lengths)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        return losses, logits

    @classmethod
    def known_settings(cls) -> dict[str, inspect.Parameter]:
        """This head's settings: name → constructor parameter, with its default and type."""
        parameters = inspect.signature(cls, eval_str=True).parameters.values()
        return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings this head was built with, ready for JSON and for `build_head`."""
        # vars() and not getattr(): a missing attribute must not end in nn.Module.__getattr__,
        # which would blame this property.
        values = vars(self)
        missing = [name for name in self.known_settings() if name not in values]
        if missing:
            raise TypeError(f"{type(self).__name__} does not keep its settings {missing}")
        return {name: values[name] for name in self.known_settings()}


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: Names the first of them.
    """
    for what, size in sizes.items():
        if size < 1:
            raise ValueError(f"{what} must be at least 1, not {size}")


def mask(lengths: Tensor, frames: int) -> Tensor:
    """Which frames are real: bool [B, T], for lengths [B] and T frames."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def frame_vectors(features: Tensor, lengths: Tensor) -> Tensor:
    """Features [B, T, D, g, g] as one vector for each frame [B, T, D·g·g], with zeros as padding.

    Padding may hold NaN, which no multiplication by a mask removes; hence the fill, and hence
    every head starts here.
    """
    return zero_padding(features.flatten(2), lengths)


def zero_padding(sequence: Tensor, lengths: Tensor) -> Tensor:
    """A sequence [B, T, P] with zeros behind the end of each clip."""
    # Whole clips are the rule, and a copy of every frame is not free. Not on a GPU, which would be
    # waited for.
    if lengths.device.type == "cpu" and bool((lengths == sequence.shape[1]).all()):
        return sequence
    return sequence.masked_fill(~mask(lengths, sequence.shape[1])[..., None], 0.0)


def masked_mean(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the real steps of a sequence [B, T, P]: [B, P]."""
    return zero_padding(sequence, lengths).sum(1) / lengths[:, None]
