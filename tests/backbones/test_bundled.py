"""The bundled networks: whole, small, the same as what was trained, and without torchvision."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidfuse.backbones import BACKBONES, choose, place_of
from vidfuse.backbones.grid import pool
from vidfuse.backbones.imports import reinstall
from vidfuse.backbones.load import fetch, load_backbone
from vidfuse.backbones.norms import fold_norms, renew_statistics
from vidfuse.backbones.thin_efficientnet import thin_efficientnet
from vidfuse.backbones.thin_resnet import DEPTHS, WIDTHS, thin_resnet
from vidfuse.data.content import ContentIndex
from vidfuse.errors import UnknownNameError, UserError
from vidfuse.features.build import build_extractor
from vidfuse.features.spec import FeatureConfig, weights_digest
from vidfuse.progress import Reporter

EDITIONS = [name for name, info in BACKBONES.items() if info.bundled]

Network = Callable[..., nn.Sequential]
NETWORKS = (thin_resnet, thin_efficientnet)


def pixels(count: int, size: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), np.uint8))


@pytest.mark.parametrize("name", EDITIONS)
def test_the_weights_are_whole_and_small(name: str) -> None:
    weights = BACKBONES[name].weights
    assert weights is not None
    content = place_of(weights).read_bytes()
    assert sha256(content).hexdigest() == weights.sha256
    assert len(content) <= 12e6


@pytest.mark.parametrize(("name", "layer", "width", "stride"), [
    ("thin_resnet", "stem", 48, 4), ("thin_resnet", "layer1", 48, 4),
    ("thin_resnet", "layer2", 96, 8), ("thin_resnet", "layer3", 192, 16),
    ("thin_resnet", "layer4", 512, 32), ("thin_efficientnet", "stage4", 112, 16),
    ("thin_efficientnet", "stage6", 320, 32), ("thin_efficientnet", "head", 1280, 32),
])  # fmt: skip
def test_each_stage_gives_a_map(name: str, layer: str, width: int, stride: int) -> None:
    backbone = load_backbone(choose(name, layer=layer))
    with torch.inference_mode():
        features = backbone(pixels(2, 128))
    assert features.shape == (2, width, 128 // stride, 128 // stride)
    assert features.isfinite().all()
    assert features.std() > 0


@pytest.mark.parametrize(
    ("name", "layer"), [("thin_resnet", "layer3"), ("thin_efficientnet", "stage6")]
)
def test_a_layer_that_does_not_exist_names_those_that_do(name: str, layer: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        load_backbone(choose(name, layer="layer5"))
    assert layer in str(error.value.hint)


@pytest.mark.parametrize(
    ("name", "left"), [("thin_resnet", [1, 1, 0, 0]), ("thin_efficientnet", [1, 1, 0.5, 0, 0])]
)
def test_every_grid_nests(name: str, left: list[float]) -> None:
    """Positions count in the left half of a map by the part of them that lies there."""
    info = BACKBONES[name]
    with torch.inference_mode():
        native = load_backbone(choose(name))(pixels(3, info.size)).numpy()
    assert native.shape == (3, info.channels, info.side, info.side)
    assert pool(native, info.side) is native
    assert np.allclose(pool(pool(native, 2), 1), native.mean((2, 3), keepdims=True), atol=1e-5)
    corner = np.average(np.average(native, 2, left[::-1]), 2, left)
    assert np.allclose(pool(native, 2)[:, :, 1, 0], corner, atol=1e-5)


@pytest.mark.parametrize("build", NETWORKS)
def test_folding_batch_norms_changes_nothing(build: Network) -> None:
    torch.manual_seed(0)
    network = build(norm=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.eval()(images)
        folded = fold_norms(network)(images)
    assert torch.allclose(folded, expected, rtol=1e-4, atol=1e-4)
    assert not [each for each in fold_norms(network).modules() if isinstance(each, nn.BatchNorm2d)]


@pytest.mark.parametrize("build", NETWORKS)
def test_renewed_statistics_are_those_of_the_images(build: Network) -> None:
    torch.manual_seed(0)
    network, images = build(norm=True), torch.randn(64, 3, 64, 64)
    renew_statistics(network, images)
    with torch.inference_mode():
        evaluated, trained = network.eval()(images), network.train()(images)
    assert (evaluated - trained).abs().mean() < 0.03 * trained.std()
    momenta = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {nn.BatchNorm2d(1).momentum}


def test_the_stages_have_the_stated_blocks() -> None:
    network = thin_resnet()
    stages = [network.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]
    assert [len(list(stage.children())) for stage in stages] == list(DEPTHS)
    assert stages[-1](torch.zeros(1, WIDTHS[2], 8, 8)).shape == (1, WIDTHS[3], 4, 4)


@pytest.mark.parametrize(("layer", "width", "stride"), [
    ("stem", 24, 2), ("stage1", 24, 4), ("stage2", 40, 8), ("stage3", 80, 16), ("stage4", 112, 16),
    ("stage5", 192, 32), ("stage6", 320, 32), ("head", 1280, 32),
])  # fmt: skip
@pytest.mark.parametrize("size", [64, 144])
def test_stages_have_the_channels_of_the_teachers(
    layer: str, width: int, stride: int, size: int
) -> None:
    network = thin_efficientnet()
    names = [name for name, _ in network.named_children()]
    cut = network[: names.index(layer) + 1]
    with torch.inference_mode():
        maps = cut(torch.zeros(2, 3, size, size))
    side = -(-size // stride)
    assert maps.shape == (2, width, side, side)


def test_frames_have_the_backbones_own_size(tmp_path: Path) -> None:
    def size(**settings: object) -> int:
        config = FeatureConfig.from_mapping({"cache": str(tmp_path), **settings})
        return build_extractor(config, 1, Reporter()).spec.size

    assert size() == 160
    assert size(size=96) == 96
    assert size(backbone="thin_resnet") == 128
    assert size(backbone="resnet18", weights="random") == 224


@pytest.mark.parametrize("name", EDITIONS)
def test_nothing_imports_torchvision(name: str) -> None:
    code = (
        "import sys, torch; from vidfuse.backbones import choose\n"
        "from vidfuse.backbones.load import load_backbone\n"
        f"load_backbone(choose('{name}'))(torch.zeros(1, 128, 128, 3, dtype=torch.uint8))\n"
        "assert 'torchvision' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", EDITIONS)
def test_missing_or_damaged_weights_say_how_to_get_them_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    whole = BACKBONES[name].weights
    assert whole is not None
    weights = replace(whole, file=str(tmp_path / "bundled"))
    monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], weights=weights))
    with pytest.raises(UserError, match="missing") as error:
        fetch(choose(name), Reporter())
    assert error.value.hint == reinstall()
    place_of(weights).write_bytes(place_of(whole).read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="damaged") as error:
        weights_digest(choose(name), ContentIndex(tmp_path), Reporter())
    assert error.value.hint == reinstall()
