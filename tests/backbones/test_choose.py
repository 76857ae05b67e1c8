"""The table of backbones, and what the options resolve to. No torch is needed to know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vidfuse.backbones import BACKBONES, DOWNLOAD_URL, choose, download_folder
from vidfuse.errors import UnknownNameError, UserError


def test_the_table_agrees_with_torchvision() -> None:
    import torch
    from torchvision.models import get_model_weights

    for name, info in BACKBONES.items():
        if info.sha256 is not None:
            continue  # bundled, and so not torchvision's
        weights = get_model_weights(name).IMAGENET1K_V1
        assert weights.url == DOWNLOAD_URL + info.weights
        preprocessing = weights.transforms()
        assert tuple(preprocessing.mean) == info.mean
        assert tuple(preprocessing.std) == info.std
        assert preprocessing.crop_size == [info.size]
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


def test_the_bundled_network_is_the_default() -> None:
    choice = choose()
    assert (choice.name, choice.layer, choice.published) == ("thin_resnet", "layer4", True)
    assert choice.weights == choice.info.place
    assert choice.weights.parent == Path(sys.modules["vidfuse.backbones"].__file__ or "").parent


def test_an_unknown_backbone_suggests_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'") as error:
        choose("resnet5O")
    assert "vgg16_bn" in str(error.value.hint)


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
