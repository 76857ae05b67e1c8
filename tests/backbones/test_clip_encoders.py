"""Clip encoders: torchvision's video networks, windows of frames, and steps in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidfuse.backbones import BackboneChoice, choose, find_backbone
from vidfuse.backbones.engine import TorchEngine
from vidfuse.backbones.imports import import_torchvision
from vidfuse.backbones.load import load_backbone
from vidfuse.backbones.torchvision_table import torchvision_backbones

models: Any = import_torchvision().models
VIDEO = [name for name, info in torchvision_backbones().items() if info.kind == "clip"]
SMALL = ["mc3_18", "mvit_v2_s", "r2plus1d_18", "r3d_18", "s3d", "swin3d_t"]


def random_network(name: str) -> nn.Module:
    """torchvision's own network, with batch norms that change something."""
    torch.manual_seed(0)
    network: nn.Module = getattr(models.video, name)(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.get_buffer("running_mean").normal_(0, 0.1)
            module.get_buffer("running_var").uniform_(0.5, 1.5)
    return network


def own_map(network: Any, name: str, windows: Tensor) -> Tensor:
    """The last map ``[N, D, t, h, w]`` on the way through torchvision's own forward pass."""
    caught: list[Tensor] = []
    if name.startswith("mvit"):
        network.norm.register_forward_hook(lambda _, __, out: caught.append(out))
    else:
        network.avgpool.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    network(windows)
    if not name.startswith("mvit"):
        return caught[0]
    side = windows.shape[-1] // 32
    tokens = caught[0][:, 1:]  # behind the class token
    return tokens.transpose(1, 2).unflatten(2, (windows.shape[2] // 2, side, side))


@pytest.mark.parametrize("name", SMALL)
def test_features_are_those_of_torchvision(name):
    choice = choose(name, "random")
    info = choice.info
    network = random_network(name)
    backbone = load_backbone(choice, state=network.state_dict())
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(
        rng.integers(0, 256, (info.window, info.size, info.size, 3), np.uint8)
    )
    with torch.inference_mode():
        found = backbone(pixels)
        images = pixels.permute(3, 0, 1, 2)[None] / 255
        mean, std = (torch.tensor(each)[:, None, None, None] for each in (info.mean, info.std))
        expected = own_map(network, name, (images - mean) / std)
    assert found.shape == (info.steps, info.channels, info.side, info.side)
    expected = expected[0].transpose(0, 1)
    assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_all_are_in_the_table():
    assert {name.partition(".")[0] for name in VIDEO} == set(models.list_models(models.video))
    for name in VIDEO:
        info = find_backbone(name)[1]
        assert info.window % info.steps == 0
        assert info.rate


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    """A small clip encoder: r3d_18 up to layer1, which keeps all steps in time."""
    choice: BackboneChoice = choose("r3d_18", "random", "layer1")
    return TorchEngine(load_backbone(choice))


def test_windows_follow_each_other(engine):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), np.uint8)
    (both,) = engine.features([pixels[:16], pixels[16:]], "fp32", [1])
    assert both.shape == (48, 64, 1, 1)
    for window in range(3):
        frames = slice(16 * window, 16 * window + 16)
        (alone,) = engine.features([pixels[frames]], "fp32", [1])
        np.testing.assert_allclose(alone, both[frames], atol=2e-3)


def test_too_little_memory_halves_at_windows(engine, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (48, 16, 16, 3), np.uint8)
    (expected,) = engine.features([pixels], "fp32", [1])
    forward, sizes = engine.backbone.forward, []

    def scarce(frames: Tensor) -> Tensor:
        if len(frames) > 16:
            raise torch.OutOfMemoryError
        sizes.append(len(frames))
        return forward(frames)

    monkeypatch.setattr(engine.backbone, "forward", scarce)
    (found,) = engine.features([pixels], "fp32", [1])
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert sizes == [16, 16, 16]
