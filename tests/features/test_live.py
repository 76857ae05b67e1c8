"""Frames that are decoded and encoded when they are asked for, and not before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import TOLERANCE, entries, extractor
from PIL import Image

from vidfuse.backbones.engine import TorchEngine
from vidfuse.data.clip import Clip
from vidfuse.inference.frame_selection import LiveSource
from vidfuse.inference.predictor import Glimpses
from vidfuse.video.open_clips import OpenClips


@pytest.fixture
def files() -> Iterator[OpenClips]:
    with OpenClips("pyav", workers=3) as opened:
        yield opened


@pytest.fixture
def clips(make_clip: Any) -> list[Clip]:
    return [Clip(make_clip(f"{n}.mkv", seed=n, frames=n)) for n in (12, 3, 7)]


def test_the_features_are_those_of_the_cache(clips: list[Clip], files: OpenClips) -> None:
    used = extractor(None)
    expected = entries(extractor(None), clips)
    source = LiveSource(used, files, clips)
    assert source.lengths.tolist() == [4, 3, 4]
    for asked in ({0: 2, 1: 0, 2: 3}, {2: 0}, {0: 0, 1: 2}):
        positions = torch.tensor(list(asked.values()))
        features = source.at(torch.tensor(list(asked)), positions)
        assert features.dtype == torch.float32
        for row, (clip, position) in zip(features, asked.items(), strict=True):
            cached = expected[clips[clip]].features[position].astype(np.float32)
            assert np.allclose(row.numpy(), cached, **TOLERANCE)
    times = [expected[clip].times for clip in clips]
    assert source.glimpses[0].times == [times[0][2], times[0][0]]
    assert source.glimpses[2].times == [times[2][3], times[2][0]]
    assert [seen.encoded for seen in source.glimpses] == [2, 2, 2]
    # Each short video is decoded once, as a whole.
    assert [seen.decoded for seen in source.glimpses] == [12, 3, 7]


def test_only_what_is_asked_for_is_read_and_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: OpenClips
) -> None:
    """Of clips stored as frames, those that are not chosen may as well not be there."""
    encoded: list[int] = []
    original = TorchEngine.features

    def hook(engine: TorchEngine, parts: Any, *more: Any) -> Any:
        encoded.append(sum(map(len, parts)))
        return original(engine, parts, *more)

    monkeypatch.setattr(TorchEngine, "features", hook)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        for i in range(4):
            file = folder / f"{i}.png"
            if i in (1, 3):
                Image.fromarray(np.full((32, 32, 3), 50 * i, np.uint8)).save(file)
            else:
                file.write_bytes(b"not a frame")
    source = LiveSource(extractor(None), files, [Clip(folder) for folder in folders])
    assert encoded == []
    assert [seen.decoded for seen in source.glimpses] == [0, 0]
    source.at(torch.tensor([0, 1]), torch.tensor([1, 3]))
    source.at(torch.tensor([1]), torch.tensor([1]))
    assert encoded == [2, 1]
    assert [seen.decoded for seen in source.glimpses] == [1, 2]
    assert [seen.encoded for seen in source.glimpses] == [1, 2]
    assert source.failures == {}
    assert source.warnings == [[], []]


def test_a_clip_that_fails_goes_on_black(
    clips: list[Clip], tmp_path: Path, files: OpenClips
) -> None:
    bad = tmp_path / "text.mp4"
    bad.write_text("no video")
    source = LiveSource(extractor(None), files, [clips[0], Clip(bad)])
    assert source.lengths.tolist() == [4, 1]
    assert list(source.failures) == [1]
    features = source.at(torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert torch.isfinite(features).all()
    assert source.glimpses[1] == Glimpses()
    assert source.glimpses[0].encoded == 1


def test_glimpses_add_up() -> None:
    assert Glimpses([1.0], 1, 5) + Glimpses([0.5, 2.0], 2, 7) == Glimpses([1.0, 0.5, 2.0], 3, 12)
