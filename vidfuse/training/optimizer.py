"""The optimiser of the training loop, and the formulas of its steps.

`AdamW` is torch's without the second that ``torch.optim.Optimizer`` takes to start: making any
optimiser object imports torch's compiler (``torch._dynamo``), which takes about as long as torch
itself; a head on cached features trains in a few seconds. The arithmetic is torch's own functional
AdamW, fused (one pass over the weights instead of ten), so the weights are those of
``torch.optim.AdamW(fused=True)``, to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
STEPS = 30  # of the search for weights; they change no more after some ten
EPSILON = 1e-8


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2).

    It has of ``torch.optim.Optimizer`` what a training loop and ``GradScaler`` use.

    Args:
        groups: Parameter groups: dictionaries with ``params`` and ``weight_decay``.
        lr: Learning rate; each group's ``lr`` may be changed between steps.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        self.param_groups = [{"lr": lr, **group} for group in groups]
        parameters = [p for group in groups for p in group["params"]]
        self.state = {
            p: {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }
            for p in parameters
        }

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            state = [self.state[p] for p in params]
            adamw(
                params,
                [p.grad for p in params if p.grad is not None],
                [each["exp_avg"] for each in state],
                [each["exp_avg_sq"] for each in state],
                [],
                [each["step"] for each in state],
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                maximize=False,
                fused=True,
            )

    def state_dict(self) -> dict[str, Any]:
        """The moments and step counts, by the parameter's place."""
        return {"state": dict(enumerate(self.state.values()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the moments and step counts of another optimiser of the same parameters."""
        for mine, theirs in zip(self.state.values(), state["state"].values(), strict=True):
            for name, value in mine.items():
                value.copy_(theirs[name])


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
    """Inverse frequency of each clip's class [N], or each frame's [N, T], scaled to mean 1.

    With mean 1, the loss and so the learning rate keep their scale. Frames without a class have 0.
    """
    known = labels >= 0
    weights = 1.0 / torch.bincount(labels[known])[labels.clamp(min=0)].float()
    return weights * known / weights[known].mean()


def lr_factor(step: int, *, warmup: int, total: int) -> float:
    """Learning rate of a step (from 0) as a share of the highest: linear rise, then half a cosine.

    The cosine is that of Loshchilov and Hutter, SGDR, 2017, equation 5, without restarts.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def macro_f1(labels: Tensor, predicted: Tensor, classes: int) -> float:
    """Mean F1 over the classes that occur in labels [N], as `vidfuse.metrics.summary` has it."""
    support = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels[labels == predicted], minlength=classes)
    f1 = 2 * hits.double() / (support + torch.bincount(predicted, minlength=classes))
    return f1[support > 0].mean().item()


def calibration_weights(parts: Tensor, labels: Tensor) -> Tensor:
    """Weights w [K] of the parts of logits [K, N, C] with the least cross-entropy of their sum.

    Parts that are sure and often wrong get small ones, which is the temperature of Guo et al. (On
    Calibration of Modern Neural Networks, ICML 2017) with several of them. Their logarithms have a
    standard normal prior: five clips that happen to be right are no reason to be sure. Found by
    Newton's steps, with the gradient g and the Hessian H of the cross-entropy by w::

        log w ← log w - (w wᵀ ∘ H + I + diag(max(w ∘ g, 0)))⁻¹ (w ∘ g + log w)

    Of logits that are not finite all weights are 1.
    """
    if not parts.isfinite().all():
        return torch.ones(len(parts))
    parts, logs = parts.double(), parts.new_zeros(len(parts), dtype=torch.float64)
    target = F.one_hot(labels, parts.shape[2]).double()
    for _ in range(STEPS):
        weights = logs.exp()
        chance = (weights[:, None, None] * parts).sum(0).softmax(1)
        centred = parts - (chance * parts).sum(2, keepdim=True)
        slope = ((chance - target) * parts).sum((1, 2))
        information = torch.einsum("nc,inc,jnc->ij", chance, centred, centred)
        bend = torch.diag(1 + (weights * slope).clamp(min=0))
        curvature = weights[:, None] * information * weights + bend
        step = torch.linalg.solve(curvature, weights * slope + logs)
        logs = (logs - step.clamp(-1, 1)).clamp(-5, 5)
    return logs.exp().float()
