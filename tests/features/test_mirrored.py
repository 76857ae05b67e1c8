"""The mirrored view of a clip: entries of its own, of really mirrored frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import close, entries, extractor, gathered

from vidfuse.backbones.imports import resolve_device
from vidfuse.data.clip import Clip
from vidfuse.features.cache import entry_key
from vidfuse.training.config import TrainConfig
from vidfuse.training.steps import new_fit


def write(path: Path, pixels: np.ndarray[Any, Any]) -> Clip:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "bgr0"
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Clip(path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Clip, Clip]:
    """A clip, and one whose frames are its mirror images."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 12, 3), np.uint8)
    pixels = pixels.repeat(4, 1).repeat(4, 2)
    return write(tmp_path / "a.mkv", pixels), write(tmp_path / "b.mkv", pixels[:, :, ::-1])


@pytest.mark.parametrize("size", [32, 40, 31])
def test_features_are_those_of_mirrored_pictures(pair: tuple[Clip, Clip], size: int) -> None:
    from dataclasses import replace

    from clips import SPEC

    one, other = pair
    spec = replace(SPEC, size=size)
    plain = entries(extractor(None, spec), [one, other])
    mirrored = entries(extractor(None, spec, mirrored=True), [one, other])
    assert close(mirrored[one], plain[other])
    assert close(mirrored[other], plain[one])
    assert not close(plain[one], plain[other])


def test_each_view_has_its_own_key() -> None:
    clip = Clip(Path("a.mkv"))
    segment = Clip(Path("a.mkv"), start=1.0, end=2.0)
    keys = {entry_key("abc", each, view) for each in (clip, segment) for view in (False, True)}
    assert len(keys) == 4
    assert entry_key("abc", clip) == entry_key("abc", clip, False)


def test_a_second_run_reuses_both_views(pair: tuple[Clip, Clip], tmp_path: Path) -> None:
    cache, (clip, _) = tmp_path / "cache", pair
    first = {}
    for mirrored in (False, True):
        each = extractor(cache, mirrored=mirrored)
        first[mirrored] = entries(each, [clip])[clip]
        assert (each.stats.computed, each.stats.reused) == (1, 0)
    for mirrored in (False, True):
        each = extractor(cache, mirrored=mirrored)
        assert close(entries(each, [clip])[clip], first[mirrored])
        assert (each.stats.computed, each.stats.reused) == (0, 1)
    assert not close(first[False], first[True])


def test_only_training_examples_are_doubled(pair: tuple[Clip, Clip]) -> None:
    one, other = (
        Clip(clip.path, label) for clip, label in zip(pair, ("left", "right"), strict=True)
    )
    plain = entries(extractor(None), [one, other])
    mirrored = entries(extractor(None, mirrored=True), [one, other])
    parts = {"train": [one], "val": [other]}
    config = TrainConfig(frames=4, device=str(resolve_device("cpu")), head="mean")
    assert config.mirror is False
    classes = ["left", "right"]
    fit = new_fit(config, gathered(plain), parts, classes)
    assert (len(fit.train), len(fit.val)) == (1, 1)
    fit = new_fit(config, gathered(plain, mirrored), parts, classes)
    assert (len(fit.train), len(fit.val)) == (2, 1)
    assert fit.train.labels.tolist() == [0, 0]
    assert fit.val.labels.tolist() == [1]
    features, val = (
        part.batch(torch.arange(len(part)), torch.device("cpu"))[0].numpy()
        for part in (fit.train, fit.val)
    )
    assert np.array_equal(features[0], plain[one].features)
    assert np.array_equal(features[1], mirrored[one].features)
    assert np.array_equal(val[0], plain[other].features)
