"""The formulas of the training loop."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def decay_groups(head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters to train, with weight decay on matrices only.

    Decay shrinks what multiplies features; a shrunk bias or norm would only be a wrong one.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def automatic_batch_size(clips: int) -> int:
    """The largest power of two from 8 to 64 that leaves 8 steps an epoch, or else 8."""
    return max([8] + [size for size in (16, 32, 64) if clips >= 8 * size])


def balanced_weights(labels: Tensor) -> Tensor:
    """Inverse frequency of each clip's class [N], scaled to mean 1 over the clips.

    With mean 1, the loss and so the learning rate keep their scale.
    """
    weights = 1.0 / torch.bincount(labels)[labels].float()
    return weights / weights.mean()


def lr_factor(step: int, *, warmup: int, total: int) -> float:
    """Learning rate of a step (from 0) as a share of the highest: linear rise, then half a cosine.

    The cosine is that of Loshchilov and Hutter, SGDR, 2017, equation 5, without restarts.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def measure(labels: Tensor, logits: Tensor, frames: Tensor, classes: int) -> dict[str, float]:
    """What an epoch's record says of validation clips.

    Args:
        labels: Their classes [N].
        logits: The head's answers [N, C].
        frames: How many frames each answer took [N].
        classes: Number of classes C.
    """
    predicted = logits.argmax(1)
    return {
        "val_loss": F.cross_entropy(logits, labels).item(),
        "val_accuracy": (predicted == labels).double().mean().item(),
        "val_macro_f1": macro_f1(labels, predicted, classes),
        "val_frames": frames.double().mean().item(),
    }


def macro_f1(labels: Tensor, predicted: Tensor, classes: int) -> float:
    """Mean F1 over the classes that occur in labels [N], as `vidfuse.metrics.summary` has it."""
    support = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels[labels == predicted], minlength=classes)
    f1 = 2 * hits.double() / (support + torch.bincount(predicted, minlength=classes))
    return f1[support > 0].mean().item()


def mean(values: list[float] | list[bool]) -> float:
    """Mean of values, NaN if there are none."""
    return sum(values) / len(values) if values else math.nan
