"""Frames left out at random in training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidfuse.training.examples import Examples, drop_frames

FRAMES = 12


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(lengths: Tensor) -> Tensor:
    """Features [B, T, 1, 1, 1] that hold 100 times the clip plus the frame; padding is NaN."""
    clips = torch.arange(len(lengths))[:, None]
    features = (100 * clips + torch.arange(FRAMES)).float()
    features[torch.arange(FRAMES) >= lengths[:, None]] = float("nan")
    return features[..., None, None, None]


def kept(lengths: Tensor, share: float, seed: int = 0) -> list[list[int]]:
    """Which frames of each clip stay, in the order in which they come."""
    features, left = drop_frames(numbered(lengths), lengths, share, generator(seed))
    assert features.shape == (len(lengths), FRAMES, 1, 1, 1)
    return [
        (row[:count].flatten() - 100 * clip).tolist()
        for clip, (row, count) in enumerate(zip(features, left.tolist(), strict=True))
    ]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_order_is_kept_one_frame_stays_and_padding_is_never_chosen(share):
    lengths = torch.arange(400) % FRAMES + 1
    for frames, length in zip(kept(lengths, share), lengths.tolist(), strict=True):
        assert 1 <= len(frames) <= length
        assert frames == sorted(set(frames))  # NaN is not in its place, so padding would show
        assert set(frames) <= set(range(length))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_the_share_is_as_stated_on_average(share):
    frames = kept(torch.full((4000,), FRAMES), share)
    # 48,000 draws have a standard deviation of 0.0023; one frame that must stay adds under 0.002.
    assert sum(map(len, frames)) / (4000 * FRAMES) == pytest.approx(1 - share, abs=0.012)
    for place in (0, 5, FRAMES - 1):
        there = sum(place in each for each in frames) / 4000
        assert there == pytest.approx(1 - share, abs=0.04)


def test_the_one_frame_that_stays_may_be_any():
    assert {frames[0] for frames in kept(torch.full((500,), 4), 0.999)} == {0, 1, 2, 3}


def test_a_generator_decides():
    lengths = torch.full((20,), FRAMES)
    assert kept(lengths, 0.5, seed=1) == kept(lengths, 0.5, seed=1)
    assert kept(lengths, 0.5, seed=1) != kept(lengths, 0.5, seed=2)


def test_only_in_training_and_only_where_asked_for():
    lengths = torch.tensor([FRAMES, 3, 1])
    clips = Examples.stacked(numbered(lengths), lengths, torch.zeros(3, dtype=torch.int64))
    rows, device = torch.arange(3), torch.device("cpu")

    def counts(training: bool) -> list[int]:
        return clips.batch(rows, device, generator() if training else None)[1].tolist()

    assert counts(training=True) == [FRAMES, 3, 1]
    clips.frame_dropout = 0.8
    assert counts(training=False) == [FRAMES, 3, 1]
    assert sum(counts(training=True)) < FRAMES
    assert counts(training=True)[2] == 1
    assert clips.lengths.tolist() == [FRAMES, 3, 1]


def test_chosen_frames_are_left_out_too():
    """Frames are dropped from what is read, not from what is cached."""
    lengths = torch.full((8,), FRAMES)
    clips = Examples.stacked(numbered(lengths), lengths, torch.zeros(8, dtype=torch.int64))
    clips.frames, clips.lengths = clips.frames[:, ::3], torch.full((8,), 4)
    clips.frame_dropout = 0.5
    found, counts = clips.batch(torch.arange(8), torch.device("cpu"), generator())
    assert found.shape[1] == 4
    assert counts.tolist() != [4] * 8
    assert {int(frame) % 100 for frame in found.flatten()} <= {0, 3, 6, 9}


def test_frames_are_read_in_a_given_order():
    lengths = torch.tensor([FRAMES, 3])
    clips = Examples.stacked(numbered(lengths), lengths, torch.zeros(2, dtype=torch.int64))
    clips.order = torch.stack([torch.arange(FRAMES).flip(0), torch.arange(FRAMES)])
    clips.order[1, :3] = torch.tensor([2, 0, 1])
    found, _ = clips.batch(torch.arange(2), torch.device("cpu"))
    assert found[0].flatten().tolist() == [*reversed(range(FRAMES))]
    assert found[1, :3].flatten().tolist() == [102, 100, 101]
