"""Small heads are computed with one thread, whatever torch would take; large ones are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vidfuse.heads import base, build_head
from vidfuse.heads.base import frame_macs
from vidfuse.heads.pooling import Mean
from vidfuse.training.config import TrainConfig
from vidfuse.training.examples import Examples, predict
from vidfuse.training.fit import Fit

CLIPS, FRAMES, CHANNELS = 12, 4, 8


class Counting(Mean):
    """Notes with how many threads it is computed."""

    seen: list[int]

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """As usual."""
        self.seen.append(torch.get_num_threads())
        return super().forward(features, lengths)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def examples() -> Examples:
    features = torch.randn(CLIPS, FRAMES, CHANNELS, 1, 1)
    return Examples.stacked(features, torch.full((CLIPS,), FRAMES), torch.arange(CLIPS) % 3)


def seen(**settings: Any) -> list[int]:
    head = Counting(CHANNELS, 1, 3)
    head.seen = []
    config = TrainConfig(head="mean", epochs=2, **settings)
    for _ in Fit(head, examples(), examples(), config, device="cpu", classes=3):
        assert torch.get_num_threads() == 2, "as it was, between epochs"
    predict(head, examples(), device="cpu", batch_size=64)
    assert torch.get_num_threads() == 2
    return head.seen


@pytest.mark.usefixtures("two_threads")
def test_a_small_head_has_one_thread() -> None:
    counts = seen()
    assert len(counts) >= 5
    assert set(counts) == {1}, "in training, validation and tests"


@pytest.mark.usefixtures("two_threads")
def test_a_large_head_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "WORTH_DIVIDING", 10.0)
    assert set(seen()) == {2}


def test_macs_of_a_frame() -> None:
    linear = build_head("mean", channels=8, grid=1, classes=3)
    assert frame_macs(linear) == 8 * 3
    default = build_head("lstm", channels=512, grid=2, classes=10)
    assert 1.0e6 < frame_macs(default) < 1.1e6
    maps = build_head("convlstm", channels=8, grid=4, classes=3, settings={"hidden": 4})
    wide = build_head("convlstm", channels=8, grid=8, classes=3, settings={"hidden": 4})
    assert frame_macs(wide) > 3 * frame_macs(maps)
