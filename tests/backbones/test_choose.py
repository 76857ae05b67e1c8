"""The table of backbones, and what the options resolve to. No torch is needed to know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vidfuse.backbones import FIRST_EDITION, choose, download_folder, find_backbone, place_of
from vidfuse.backbones.torchvision_table import torchvision_backbones
from vidfuse.errors import UnknownNameError, UserError


def test_the_table_agrees_with_torchvision() -> None:
    import torch
    from torchvision.models import get_model_weights

    for full, info in torchvision_backbones().items():
        name, _, tag = full.partition(".")
        weights = get_model_weights(name)[tag]
        preprocessing = weights.transforms()
        assert info.weights is not None
        assert info.weights.url == weights.url
        assert (info.mean, info.std) == (tuple(preprocessing.mean), tuple(preprocessing.std))
        assert info.size == preprocessing.crop_size[0]
        assert info.interpolation == preprocessing.interpolation.value
        resized = preprocessing.resize_size[0]
        assert info.crop_fraction == pytest.approx(info.size / resized, abs=1e-6)
        assert info.parameters == weights.meta["num_params"]
        assert find_backbone(name)[0] in (name, f"{name}.{get_model_weights(name).DEFAULT.name}")
    assert download_folder() == Path(torch.hub.get_dir()) / "checkpoints"


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_weights_are_looked_for_where_torch_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None
) -> None:
    import torch

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "somewhere"))
    assert download_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_a_bundled_network_is_the_default() -> None:
    choice = choose()
    assert (choice.name, choice.layer, choice.published) == ("thin_efficientnet", "head", True)
    assert choice.info.weights is not None
    assert choice.weights == place_of(choice.info.weights)
    assert choice.weights.parent == Path(sys.modules["vidfuse.backbones"].__file__ or "").parent


def test_an_unknown_backbone_suggests_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'") as error:
        choose("resnet5O")
    assert "vidfuse backbones" in str(error.value.hint)


def test_names_of_the_first_edition_see_whole_short_sides() -> None:
    for name in FIRST_EDITION:
        full, first = find_backbone(name)
        tagged = find_backbone(f"{name}.IMAGENET1K_V1")[1]
        assert full == name
        assert (first.crop_fraction, tagged.crop_fraction) == (1.0, 0.875)
        assert first.weights == tagged.weights


def test_a_bare_name_means_the_default_weights() -> None:
    assert find_backbone("convnext_tiny")[0] == "convnext_tiny.IMAGENET1K_V1"
    assert find_backbone("mobilenet_v2")[0] == "mobilenet_v2.IMAGENET1K_V2"
    assert find_backbone("r3d_18")[0] == "r3d_18.KINETICS400_V1"


def test_options(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"x")
    published = choose("resnet18")
    assert (published.layer, published.published) == ("layer4", True)
    assert published.weights == download_folder() / "resnet18-f37072fd.pth"
    random = choose("vgg16", "random", "classifier.3")
    assert (random.layer, random.weights, random.published) == ("classifier.3", None, False)
    own = choose("resnet18", str(weights), "layer3")
    assert (own.weights, own.published) == (weights, False)
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        choose("resnet18", str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match="no such file"):
        choose("resnet18", str(tmp_path))


def test_choosing_imports_no_torch() -> None:
    code = (
        "import sys; from vidfuse.backbones import choose; choose('resnet50');"
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
