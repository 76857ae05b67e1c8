"""Heads that classify each frame: what holds for all of them, and the losses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidfuse.heads import HEADS, build_head, head_class
from vidfuse.heads.multi_stage import MOST_CHANGE, SMOOTHING

D, C, T = 6, 4, 20
DENSE = [name for name in sorted(HEADS) if head_class(name).dense_settings is not None]
LENGTHS = torch.tensor([20, 13, 1])


@pytest.fixture
def features():
    return torch.randn(3, T, D, 2, 2, generator=torch.Generator().manual_seed(0)).double()


def make(name, **settings):
    torch.manual_seed(0)
    given = {**(head_class(name).dense_settings or {}), **settings}
    return build_head(name, channels=D, grid=2, classes=C, settings=given).double().eval()


def test_those_that_the_documents_name():
    assert DENSE == ["gru", "lstm", "ms-tcn", "rnn", "self-attention", "tcn", "transformer"]


@pytest.mark.parametrize("name", DENSE)
def test_the_logits_of_a_clip_are_the_mean_of_its_frames(name, features):
    head = make(name)
    frames, clips = head.forward_frames(features, LENGTHS), head(features, LENGTHS)
    assert head.dense
    assert frames.shape == (3, T, C)
    for clip, length in enumerate(LENGTHS):
        torch.testing.assert_close(frames[clip, :length].mean(0), clips[clip])


@pytest.mark.parametrize("name", DENSE)
def test_padding_changes_no_frame(name, features):
    head = make(name)
    together = head.forward_frames(features, LENGTHS)
    features[1, 13:] = torch.nan
    padded = head.forward_frames(features, LENGTHS)
    alone = head.forward_frames(features[1:2, :13], LENGTHS[1:2])
    torch.testing.assert_close(together[1, :13], alone[0])
    torch.testing.assert_close(padded[1, :13], alone[0])


@pytest.mark.parametrize("name", DENSE)
def test_a_frame_has_a_loss_where_it_has_a_class(name, features):
    head = make(name)
    labels = torch.randint(0, C, (3, T), generator=torch.Generator().manual_seed(1))
    labels[1, 13:], labels[2, 1:], labels[0, 5] = -1, -1, -1
    losses, logits = head.frame_loss(features, LENGTHS, labels)
    assert losses.shape == (3, T)
    assert logits.shape == (3, C, T)
    assert (losses[labels < 0] == 0).all()
    assert (losses[labels >= 0] > 0).all()
    torch.testing.assert_close(logits.transpose(1, 2), head.forward_frames(features, LENGTHS))
    losses.mean().backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)


def test_the_two_parts_of_a_sequence_head_learn_apart(features):
    head = make("tcn")
    labels = torch.zeros(3, T, dtype=torch.int64)
    parts = head.frame_parts(features, LENGTHS)
    expected = sum(
        F.cross_entropy(part.transpose(1, 2), labels, reduction="none") for part in parts
    )
    torch.testing.assert_close(head.frame_loss(features, LENGTHS, labels)[0], expected)


def test_the_loss_of_ms_tcn_is_that_of_the_paper(features):
    """Cross-entropy and truncated changes of log probabilities, of every stage."""
    head = make("ms-tcn", stages=2)
    with torch.no_grad():  # so that some changes are cut off
        for stage in head.all_stages:
            stage.classifier.weight *= 40
    lengths = torch.full((3,), T)
    labels = torch.randint(0, C, (3, T), generator=torch.Generator().manual_seed(1))
    found, _ = head.frame_loss(features, lengths, labels)
    expected = torch.zeros(3, T, dtype=torch.float64)
    cut = 0
    for logits in head.stage_logits(features, lengths):
        logs = logits.log_softmax(2)
        for clip in range(3):
            for t in range(T):
                expected[clip, t] -= logs[clip, t, labels[clip, t]]
                if t:
                    change = (logs[clip, t] - logs[clip, t - 1]).abs()
                    cut += int((change > MOST_CHANGE).sum())
                    expected[clip, t] += SMOOTHING * change.clamp(max=MOST_CHANGE).square().mean()
    torch.testing.assert_close(found, expected)
    assert cut


def test_heads_of_clips_have_no_frames(features):
    with pytest.raises(NotImplementedError):
        make("mean").forward_frames(features, LENGTHS)
    with pytest.raises(NotImplementedError):
        make("lstm", readout="attention").forward_frames(features, LENGTHS)
