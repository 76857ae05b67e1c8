"""The contract of a head, and the parts that its implementations share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads.registry import options_of
from vidfuse.machine import one_thread

State = Tensor | tuple[Tensor, Tensor] | None
"""The memory of a recurrence between two frames, as torch's layers have it; None is nothing."""
WORTH_DIVIDING = 8e9
"""MACs of a forward pass from which several threads are faster where they have cores to
themselves."""


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
    """True if another order of the same frames can change the logits. On the class as the head is
    unless told otherwise, on an instance as its settings have it."""
    reversal_aware: bool
    """True if playing the clip backwards can change the logits; likewise."""
    paper: ClassVar[str]
    """The publication of the head, or "" for a plain baseline."""
    extra: ClassVar[str | None] = None
    """The extra that it needs, as in `pip install "vidfuse[graph]"`, or None."""
    requires: ClassVar[tuple[str, ...]] = ()
    """The modules in that extra, which only an instance may import."""
    selects_frames: ClassVar[bool] = False
    """True if it selects its frames, through a `FrameSource`, and gets no others."""
    lr: ClassVar[float] = 1e-3
    """The highest learning rate where none is given."""
    legacy_settings: ClassVar[Mapping[str, Any]] = {}
    """Values of settings that are younger than the head, in models that do not name them."""
    dense: bool = False
    """On an instance, true if it classifies each frame, too (`forward_frames`)."""
    dense_settings: ClassVar[Mapping[str, Any] | None] = None
    """Settings with which it does; None if it never does."""
    causal: bool = False
    """On an instance, true if it classifies frames one at a time, too, as they come (`step`)."""
    frame_cost: float = 0.0
    """Cost of observing one frame: as a share of accuracy, and in nats where an epoch is chosen."""

    def __init__(self, channels: int, grid: int, classes: int) -> None:
        super().__init__()
        check_sizes(channels=channels, grid=grid, classes=classes)
        self.channels = channels
        self.grid = grid
        self.classes = classes
        self.frame_size = channels * grid * grid
        """Length P = D·g·g of the vector that describes one frame."""

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g], where lengths [B] (int64, 1..T) count the
        frames of each clip and what follows them is padding.
        """
        raise NotImplementedError

    def prepare(self, clips: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Learn, before training, what the head has to know of its features: here nothing.

        Args:
            clips: Features [B, T, D, g, g] and lengths [B] of all training clips, in batches.
        """

    def forward_with_cost(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] as `forward` gives them, and how many frames each took [B]."""
        return self(features, lengths), lengths

    def logit_parts(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The logits in parts [K, B, C] that learn apart and whose sum they are, and how many
        frames each clip took [B]. One part, unless a head has several classifiers.
        """
        logits, frames = self.forward_with_cost(features, lengths)
        return logits[None], frames

    def weigh_parts(self, weights: Tensor) -> None:
        """Multiply the logits of each part, from now on, by its weight [K]."""
        raise NotImplementedError  # a head of one part has nothing to weigh

    def loss(
        self, features: Tensor, lengths: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The training objective: a loss for each clip [B], and the logits [B, C].

        Cross-entropy of each part alone, summed, unless a head learns by other means too.
        Randomness comes from torch's global generators, which the training loop seeds for every
        epoch.

        Args:
            features: Features [B, T, D, g, g].
            lengths: How many of the T frames are real [B].
            labels: Class indices [B].
            label_smoothing: Share of the target that is spread over all classes.
        """
        parts, _ = self.logit_parts(features, lengths)
        losses = F.cross_entropy(
            parts.flatten(0, 1),
            labels.repeat(len(parts)),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return losses.view(len(parts), -1).sum(0), parts.sum(0)

    def frame_parts(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The logits of each frame in parts [K, B, T, C] that learn apart and whose sum they are.

        Only where `dense` is true. Those of padding mean nothing.
        """
        raise NotImplementedError

    def forward_frames(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, T, C] of each frame of features [B, T, D, g, g]; see `frame_parts`."""
        return self.frame_parts(features, lengths).sum(0)

    def step(self, features: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The logits of the next frame, as `forward_frames` gives them of all frames so far.

        Only where `causal` is true.

        Args:
            features: Features [B, D, g, g] of one frame of each sequence.
            state: What the step before returned; None at the first frame.

        Returns:
            Logits [B, C], and the state for the next step.

        Raises:
            NotImplementedError: What the head says of a frame depends on later ones.
        """
        raise NotImplementedError(f"{self.name} does not read frames one at a time")

    def frame_loss(
        self, features: Tensor, lengths: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """As `loss`, for frames: a loss for each frame [B, T], and the logits [B, C, T].

        Args:
            features: Features [B, T, D, g, g].
            lengths: How many of the T frames are real [B].
            labels: Class indices [B, T]; -1 for a frame without one, whose loss is 0.
            label_smoothing: Share of the target that is spread over all classes.
        """
        parts = self.frame_parts(features, lengths).transpose(2, 3)
        losses = F.cross_entropy(
            parts.flatten(0, 1),
            labels.repeat(len(parts), 1),
            ignore_index=-1,
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return losses.view(len(parts), *labels.shape).sum(0), parts.sum(0)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings this head was built with, ready for JSON and for `build_head`."""
        # vars() and not getattr(): a missing attribute must not end in nn.Module.__getattr__,
        # which would blame this property.
        values = vars(self)
        names = options_of(type(self))
        missing = [name for name in names if name not in values]
        if missing:
            raise TypeError(f"{type(self).__name__} does not keep its settings {missing}")
        return {name: values[name] for name in names}


class SequenceHead(Head):
    """LayerNorm → Linear → what a subclass reads in the sequence, beside a mean of the frames.

    The classifier sees what was read and, past it, the mean of the normalised frames. A linear
    layer on both, concatenated, is the sum of a classifier of each; with zero weights for what was
    read it is the classifier of the `mean` head. On frozen features a sequence model without it is
    known to lose to it.

    The two learn apart: the loss is the sum of their cross-entropies, not that of their sum. On few
    clips the mean frame tells all training clips from one another after some epochs, whatever it is
    worth on others, and a common loss would leave the sequence nothing to learn. Validation then
    weighs them (`weigh_parts`): one that knows little of other clips counts little. ::

        logits = a (W r + b/2) + a' (W' m + b/2),  r what was read, m the mean frame

    Shapes: frames [B, T, P] with P = D·g·g → projected [B, T, hidden] → read [B, S], beside the
    mean frame [B, P] → logits [B, C].

    Cost: P·hidden MACs a frame for the projection, which with a small sequence model is most
    of it, and (S + P)·C a clip for the classifier.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units of each frame's projection.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    classifier: nn.Linear
    """Reads what was read [B, S] and the mean frame [B, P]. A subclass makes it, behind its own
    parts."""
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
        self.mean_size = self.frame_size
        self.norm = nn.LayerNorm(self.frame_size)
        self.project = nn.Linear(self.frame_size, hidden)
        self.drop = nn.Dropout(dropout)

    def read(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """One vector [B, S] from the projected frames [B, T, hidden], whatever padding holds."""
        raise NotImplementedError

    def encode(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """A vector for each frame [B, T, S] from the projected frames [B, T, hidden].

        What is read is their mean where the head is `dense`.
        """
        raise NotImplementedError

    def read_and_mean(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The read-out of the sequence [B, S], and the mean frame [B, P]."""
        frames = self.norm(frame_vectors(features, lengths))
        return self.read(self.project(frames), lengths), masked_mean(frames, lengths)

    def read_frames(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The vector of each frame in the sequence [B, T, S], and the frame itself [B, T, P]."""
        frames = self.norm(frame_vectors(features, lengths))
        return self.encode(self.project(frames), lengths), frames

    def frame_parts(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The logits [2, B, T, C] of each frame in its sequence, and of the frame itself.

        The classifier is that of whole clips. It is linear, and what it reads of a clip is the mean
        of what it reads of the frames, so the logits of a clip are the mean of those of its frames.
        """
        if not self.dense:
            raise NotImplementedError
        return self.classify_frames(*self.read_frames(features, lengths))

    def classify_frames(self, read: Tensor, frames: Tensor) -> Tensor:
        """The logits [2, B, T, C] of what was read at each frame [B, T, S], and of the frames."""
        of_read, of_frames = self.classifier.weight.tensor_split([read.shape[2]], dim=1)
        bias = self.classifier.bias / 2
        parts = (
            F.linear(self.drop(read), of_read, bias),
            F.linear(self.drop(frames), of_frames, bias),
        )
        return torch.stack(parts)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        both = torch.cat(self.read_and_mean(features, lengths), dim=1)
        logits: Tensor = self.classifier(self.drop(both))
        return logits

    def logit_parts(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The logits [2, B, C] of what was read and of the mean frame, and lengths [B].

        One part where a subclass has a `forward` of its own.
        """
        if type(self).forward is not SequenceHead.forward:
            return super().logit_parts(features, lengths)
        both = self.read_and_mean(features, lengths)
        weights = self.classifier.weight.split([each.shape[1] for each in both], dim=1)
        bias = self.classifier.bias / 2
        parts = [F.linear(self.drop(x), w, bias) for x, w in zip(both, weights, strict=True)]
        return torch.stack(parts), lengths

    @torch.no_grad()
    def weigh_parts(self, weights: Tensor) -> None:
        """Multiply the logits of what was read, and those of the mean frame, by weights [2]."""
        read = self.classifier.in_features - self.mean_size
        self.classifier.weight[:, :read] *= weights[0]
        self.classifier.weight[:, read:] *= weights[1]
        self.classifier.bias.mul_(weights.mean())


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: Names the first of them.
    """
    for what, size in sizes.items():
        if size < 1:
            raise ValueError(f"{what} must be at least 1, not {size}")


def mask(lengths: Tensor, frames: int) -> Tensor:
    """Mark the frames that are real: bool [B, T], for lengths [B] and T frames."""
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


def threads_for(
    head: Head, frames: int, batch: int, device: str | torch.device
) -> AbstractContextManager[None]:
    """Compute with one thread, unless a head is so large that more pay.

    Threads wait for each other behind every operation. Beside other programs one of them has always
    just lost its core, and then a small head takes many times longer than with a single thread. The
    choice goes by sizes alone, so that a run is repeated, and resumed, to the bit.

    Args:
        head: The head.
        frames: Frames of a clip.
        batch: Clips in a batch.
        device: Where it is computed.
    """
    large = frame_macs(head) * frames * batch >= WORTH_DIVIDING
    return nullcontext() if large else one_thread(device)


def frame_macs(head: Head) -> int:
    """About how many MACs a head takes for a frame: each weight once, kernels at each cell."""
    assert isinstance(head.grid, int)
    weights = [weight for weight in head.parameters() if weight.ndim > 1]
    return sum(w.numel() * (head.grid**2 if w.ndim == 4 else 1) for w in weights)
