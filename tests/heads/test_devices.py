"""Heads where their weights are, and in the half precision that a GPU trains in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_heads import VARIANTS
from torch import Tensor

from vidfuse.heads import build_head
from vidfuse.heads.base import Head

D, T, C = 8, 5, 3
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of switching oneDNN off
LABELS = torch.arange(6) % C
# What a GPU would be waited for: edges of a graph, decisions, and sequences that are packed.
NEEDS_NUMBERS = ("gcn", "gat", "policy")
Variant = tuple[str, dict[str, Any]]

every_variant = pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda v: "-".join([v[0], *map(str, v[1].values())])
)


def make(variant: Variant, device: str = "cpu") -> Head:
    torch.manual_seed(0)
    name, settings = variant
    head = build_head(name, channels=D, grid=2, classes=C, settings=settings)
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.RNNBase):
            module.dropout = 0.0
    return head.to(device).train()


def batch() -> tuple[Tensor, Tensor]:
    """Features [B, T, D, 2, 2] and lengths [B] of clips with padding."""
    features = torch.randn(6, T, D, 2, 2, generator=torch.Generator().manual_seed(1))
    return features, torch.tensor([5, 4, 3, 2, 1, 5])


def learn(head: Head, half: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """A loss for each clip [B], and the gradient of all weights in one [W], on the CPU."""
    device = next(head.parameters()).device
    features, lengths = (each.to(device) for each in batch())
    torch.manual_seed(2)
    # oneDNN has half precision on some processors only, and torch's own loops on all.
    plain = torch.backends.mkldnn.flags(enabled=False)
    with plain, torch.autocast(device.type, dtype=half, enabled=half is not None):
        losses, _ = head.loss(features, lengths, LABELS.to(device))
    losses.mean().backward()
    gradients = [each.grad.flatten() for each in head.parameters() if each.grad is not None]
    return losses.detach().cpu(), torch.cat(gradients).cpu()


@every_variant
def test_nothing_is_made_on_another_device_and_nothing_is_waited_for(variant: Variant) -> None:
    """Tensors of torch's meta device have no numbers: one of another device, or a question about
    a value, is an error.
    """
    name, settings = variant
    if name in NEEDS_NUMBERS or settings.get("bidirectional"):
        pytest.skip("needs numbers on the CPU")
    head = make(variant, "meta")
    features, lengths = (each.to("meta") for each in batch())
    losses, logits = head.loss(features, lengths, LABELS.to("meta"))
    losses.mean().backward()
    assert losses.device.type == logits.device.type == "meta"
    assert head(features, lengths).shape == (6, C)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@every_variant
def test_half_precision_learns_the_same(variant: Variant, half: torch.dtype) -> None:
    losses, gradients = learn(make(variant))
    coarse, similar = learn(make(variant), half)
    assert coarse.dtype == torch.float32  # so that the loop can weigh and scale it
    torch.testing.assert_close(coarse, losses, atol=0.05, rtol=0.05)
    assert torch.cosine_similarity(gradients, similar, dim=0) > 0.98


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_variant
def test_a_gpu_learns_and_answers_the_same(variant: Variant) -> None:
    on_cpu, on_gpu = make(variant), make(variant, "cuda")
    features, lengths = batch()
    with torch.inference_mode():
        logits = on_cpu.eval()(features, lengths)
        same = on_gpu.eval()(features.cuda(), lengths.cuda()).cpu()
    torch.testing.assert_close(same, logits, atol=1e-3, rtol=1e-3)
    losses, gradients = learn(make(variant))
    for half in (None, torch.bfloat16, torch.float16):
        found, similar = learn(make(variant, "cuda"), half)
        assert found.dtype == torch.float32
        assert torch.isfinite(similar).all()
        if variant[0] == "policy":  # whose frames are drawn, by another generator on a GPU
            continue
        near = 1e-3 if half is None else 0.05
        torch.testing.assert_close(found, losses, atol=near, rtol=near)
        assert torch.cosine_similarity(gradients, similar, dim=0) > 0.98
