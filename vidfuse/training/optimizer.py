"""AdamW without the second that ``torch.optim.Optimizer`` takes to start.

Making any optimiser object imports torch's compiler (``torch._dynamo``), which takes about as long
as torch itself; a head on cached features trains in a few seconds. The arithmetic is torch's own
functional AdamW, fused (one pass over the weights instead of ten), so the weights are those of
``torch.optim.AdamW(fused=True)``, to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
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

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.state:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The moments and step counts, by the parameter's place."""
        return {"state": dict(enumerate(self.state.values()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the moments and step counts of another optimiser of the same parameters."""
        for mine, theirs in zip(self.state.values(), state["state"].values(), strict=True):
            for name, value in mine.items():
                value.copy_(theirs[name])
