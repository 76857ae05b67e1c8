"""Heads that classify frames one at a time, as they come."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidfuse.heads import HEADS, build_head, head_class

CHANNELS, CLASSES = 6, 4
CAUSAL = {"inputs": "frames", "bidirectional": False}
DENSE = [name for name in sorted(HEADS) if head_class(name).dense_settings is not None]
RECURRENT = ["gru", "lstm", "rnn"]


def make(name, grid=2, **chosen):
    torch.manual_seed(0)
    given = {**(head_class(name).dense_settings or {}), **chosen}
    return build_head(name, channels=CHANNELS, grid=grid, classes=CLASSES, settings=given).eval()


@pytest.mark.parametrize("name", RECURRENT)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    frames=st.integers(1, 40),
    grid=st.integers(1, 2),
    layers=st.integers(1, 2),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
@settings(max_examples=25, deadline=None)
def test_steps_are_the_batch(name, seed, batch, frames, grid, layers, scale):
    head = make(name, grid, **CAUSAL, layers=layers)
    head.weigh_parts(torch.tensor([0.7, 1.9]))  # as validation does
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, frames, CHANNELS, grid, grid, generator=random) * scale
    with torch.inference_mode():
        together = head.forward_frames(features, torch.full((batch,), frames))
        state, steps = None, []
        for frame in features.unbind(1):
            logits, state = head.step(frame, state)
            steps.append(logits)
    assert head.causal
    torch.testing.assert_close(torch.stack(steps, 1), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize(
    "chosen",
    [{"bidirectional": True}, {"inputs": "deviations"}, {"readout": "last"}],
    ids=lambda chosen: next(iter(chosen)),
)
def test_what_depends_on_later_frames_cannot_step(name, chosen):
    head = make(name, **{**CAUSAL, **chosen})
    assert not head.causal
    with pytest.raises(NotImplementedError, match="one at a time with readout=mean"):
        head.step(torch.zeros(1, CHANNELS, 2, 2))


@pytest.mark.parametrize("name", sorted(set(DENSE) - set(RECURRENT)))
def test_heads_that_are_no_recurrence_cannot_step(name):
    head = make(name)
    assert not head.causal
    with pytest.raises(NotImplementedError, match="one at a time"):
        head.step(torch.zeros(1, CHANNELS, 2, 2))
