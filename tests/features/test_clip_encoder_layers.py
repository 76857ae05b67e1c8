"""Layers of clip encoders: each clip's features are its own, however many steps a window gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import vidfuse
from vidfuse.backbones import choose
from vidfuse.backbones.load import count_steps
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.features.build import build_extractor
from vidfuse.features.spec import FeatureConfig
from vidfuse.progress import Reporter

SMALL: dict[str, Any] = {
    "backbone": "r3d_18",
    "weights": "random",
    "size": 32,
    "workers": 1,
    "device": "cpu",
}


def extracted(clips, tmp_path, name, **settings):
    """Features of some clips, extracted together."""
    config = FeatureConfig.from_mapping({**SMALL, "cache": str(tmp_path / name), **settings})
    extractor = build_extractor(config, 1, Reporter())
    return dict(extractor.run(clips)), extractor


@pytest.mark.parametrize(("layer", "steps"), [("layer3", 4), ("avgpool", 1), ("layer4", 2)])
def test_features_are_those_of_each_clip_alone(dataset, tmp_path, layer, steps):
    clips = [Clip(path) for path in sorted(dataset.rglob("*.mkv"))[:3]]
    together, extractor = extracted(clips, tmp_path, "together", layer=layer, frames=8)
    assert extractor.spec.steps == steps
    for clip in clips:
        alone, _ = extracted([clip], tmp_path, "alone", layer=layer, frames=8)
        features = together[clip].features
        assert len(features) == steps, "these clips are shorter than a window"
        np.testing.assert_allclose(features, alone[clip].features, atol=2e-3)


def test_steps_are_counted_without_weights():
    for name, steps in {"r3d_18": 2, "mc3_18": 16, "mvit_v2_s": 8, "swin3d_t": 16}.items():
        choice = choose(name, "random")
        assert count_steps(choice) == choice.info.steps == steps


def test_another_number_of_steps_than_described_is_an_error(dataset, tmp_path):
    clips = [Clip(path) for path in sorted(dataset.rglob("*.mkv"))[:2]]
    config = FeatureConfig.from_mapping({**SMALL, "cache": str(tmp_path / "cache")})
    extractor = build_extractor(config, 1, Reporter())
    extractor.spec = replace(extractor.spec, steps=4)  # of which layer4 gives two
    with pytest.raises(UserError, match="gives 4 steps in time where its description says 8"):
        list(extractor.run(clips))


def test_a_head_that_selects_frames_predicts_new_clips(dataset, tmp_path):
    cache = str(tmp_path / "cache")
    settings: dict[str, Any] = {
        **SMALL,
        "frames": 4,
        "layer": "layer3",
        "epochs": 1,
        "cache": cache,
    }
    vidfuse.train(dataset, head="policy", out=str(tmp_path / "run"), **settings)
    clip = next(dataset.rglob("*.mkv"))
    (known,) = vidfuse.predict(clip, model=tmp_path / "run", cache=cache)
    (new,) = vidfuse.predict(clip, model=tmp_path / "run", cache=str(tmp_path / "empty"))
    assert known.error is None, known.error
    assert new.label == known.label
    assert new.score == pytest.approx(known.score, abs=1e-3)
