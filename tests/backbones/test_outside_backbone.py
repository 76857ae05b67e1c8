"""The encoder of docs/adding-a-backbone.md, as a package that somebody else has installed."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import vidfuse
from vidfuse.backbones import BackboneInfo, backbone_names, choose, find_backbone
from vidfuse.cli.backbones import app
from vidfuse.errors import UserError

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-backbone.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files of the document, with the metadata that installing them leaves."""
    text = DOCUMENT.read_text("utf-8")
    (project,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    description, network = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    package = tmp_path / "installed" / "vidfuse_tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(description, "utf-8")
    (package / "network.py").write_text(network, "utf-8")
    (entry,) = re.findall(r'entry-points\."vidfuse\.backbones"\]\n(.*?)\n\n', project, re.DOTALL)
    metadata = tmp_path / "installed" / "vidfuse_tiny-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vidfuse-tiny\nVersion: 0.1.0\n"
    )
    target = entry.replace('"', "")
    (metadata / "entry_points.txt").write_text(f"[vidfuse.backbones]\n{target}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    importlib.invalidate_caches()
    module = importlib.import_module("vidfuse_tiny.network")
    assert module.tiny  # which is what the document's command imports
    (code,) = re.findall(r'python -c "\n(.*?)"\n', text, re.DOTALL)
    (tmp_path / "vidfuse-tiny").symlink_to(tmp_path / "installed")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(code, {})
    yield package
    for name in ("vidfuse_tiny.network", "vidfuse_tiny"):
        sys.modules.pop(name, None)


def test_it_is_found_and_described(folder):
    (found,) = vidfuse.list_backbones("tiny")
    assert found.name == "tiny"
    assert (found.source, found.package, found.here) == ("package", "vidfuse-tiny", True)
    assert found.file == str(folder / "tiny.safetensors")
    module = sys.modules["vidfuse_tiny.network"]
    assert found.parameters == sum(p.numel() for p in module.tiny().parameters())
    assert any(each.name == "tiny" for each in vidfuse.list_backbones())


def test_it_trains_and_predicts(folder, dataset, tmp_path):
    result = vidfuse.train(dataset, backbone="tiny", epochs=2, out=str(tmp_path / "run"))
    assert result.spec["backbone"] == "tiny"
    assert result.spec["crop_fraction"] == 0.875
    clip = next(dataset.rglob("*.mkv"))
    (before,) = vidfuse.predict([clip], model=result.model)
    assert before.ok
    # Without the package, a model says what it lacks.
    (folder.parent / "vidfuse_tiny-0.1.0.dist-info" / "entry_points.txt").unlink()
    importlib.invalidate_caches()
    with pytest.raises(UserError, match="needs the backbone 'tiny'"):
        list(vidfuse.predict([clip], model=result.model))


def test_a_network_that_cannot_be_imported_is_named(folder, dataset):
    (folder / "network.py").write_text("import no_such_module\n")
    sys.modules.pop("vidfuse_tiny.network")
    with pytest.raises(UserError, match=r"vidfuse_tiny.network:tiny cannot be loaded \(ModuleNot"):
        vidfuse.train(dataset, backbone="tiny", epochs=1)


def test_its_preprocessing_may_not_change_under_a_model(folder, dataset, tmp_path):
    result = vidfuse.train(dataset, backbone="tiny", epochs=1, out=str(tmp_path / "run"))
    description = folder / "__init__.py"
    description.write_text(description.read_text().replace("0.875", "1.0"))
    sys.modules.pop("vidfuse_tiny")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r"otherwise now .* \(crop_fraction is 1.0 and was") as e:
        list(vidfuse.predict([next(dataset.rglob("*.mkv"))], model=result.model))
    assert "damaged" not in str(e.value)
    assert "Install the release of vidfuse-tiny that made it" in str(e.value.hint)


def test_its_weights_may_not_change_under_a_model(folder, dataset, tmp_path):
    result = vidfuse.train(dataset, backbone="tiny", epochs=1, out=str(tmp_path / "run"))
    module = sys.modules["vidfuse_tiny.network"]
    torch.manual_seed(1)
    torch.save(module.tiny().state_dict(), folder / "tiny.safetensors")
    with pytest.raises(UserError, match="are not the weights") as e:
        list(vidfuse.predict([next(dataset.rglob("*.mkv"))], model=result.model))
    assert "Install the release of vidfuse-tiny that made it" in str(e.value.hint)


def test_a_package_without_its_file(folder, dataset):
    (folder / "tiny.safetensors").unlink()
    with pytest.raises(UserError, match=r"vidfuse-tiny 0.1.0 is installed, but without") as e:
        vidfuse.train(dataset, backbone="tiny", epochs=1)
    assert "tiny.safetensors" in e.value.message
    assert "pip" not in str(e.value.hint), "an index may hold another package of this name"
    assert "missing in vidfuse-tiny" in CliRunner().invoke(app, ["tiny"]).output


def test_channels_that_are_not_those_of_the_network(folder, dataset):
    description = folder / "__init__.py"
    description.write_text(description.read_text().replace("channels=32", "channels=48"))
    sys.modules.pop("vidfuse_tiny")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match="'tiny' gives 32 channels, and its description says 48"):
        vidfuse.train(dataset, backbone="tiny", epochs=1)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("TINY = 3", "TINY is of type int"),
        (
            "from vidfuse.backbones import BackboneInfo\n"
            "TINY = BackboneInfo(factory='a:b', layer='c', kind='clip', window=8)",
            r"rate=None \(rate of a clip encoder is above 0",
        ),
    ],
)
def test_one_that_fails_is_named_and_the_others_are_listed(folder, code, problem):
    (folder / "__init__.py").write_text(code + "\n")
    sys.modules.pop("vidfuse_tiny")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=problem):
        choose("tiny")
    assert find_backbone("thin_resnet")
    assert all(each.name != "tiny" for each in vidfuse.list_backbones())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kind": "clip", "window": 16}, "rate=None"),
        ({"kind": "clip", "window": 16, "rate": 0}, "rate=0"),
        ({"kind": "clip", "window": 1, "rate": 15}, "window=1"),
        ({"kind": "clip", "window": 16, "steps": 3, "rate": 15}, "steps=3"),
        ({"kind": "clip", "window": 16, "steps": 0, "rate": 15}, "steps=0"),
        ({"window": 16}, "window=16"),
        ({"steps": 2}, "steps=2"),
        ({"rate": 15}, "rate=15"),
        ({"size": 0}, "size=0"),
        ({"kind": "video"}, "kind='video'"),
        ({"interpolation": "cubic"}, "interpolation='cubic'"),
        ({"std": (0.5, 0, 0.5)}, "std=(0.5, 0, 0.5)"),
        ({"std": (0.5, 0.5)}, "std=(0.5, 0.5)"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean=(0.5, nan, 0.5)"),
        ({"crop_fraction": 0.0}, "crop_fraction=0.0"),
        ({"crop_fraction": 1.5}, "crop_fraction=1.5"),
        ({"channels": -1}, "channels=-1"),
        ({"factory": "a.b"}, "factory='a.b'"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, problem):
    info = BackboneInfo(**{"factory": "a:b", "layer": "c", **fields})
    with pytest.raises(ValueError, match=re.escape(f"{problem} (")):
        info.check()


def test_a_clip_encoder_that_fits():
    info = BackboneInfo(factory="a:b", layer="c", kind="clip", window=16, steps=8, rate=7.5)
    info.check()


def test_our_own_fit_themselves():
    infos = [find_backbone(name)[1] for name in backbone_names()]
    assert len(infos) > 100
    assert {info.kind for info in infos} == {"image", "clip"}
    for info in infos:
        info.check()
