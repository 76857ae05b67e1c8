"""torch and torchvision that do not fit each other are told apart, with the way to repair it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vidfuse.backbones import BackboneChoice, BackboneInfo, imports
from vidfuse.backbones.imports import import_torchvision, load_factory, reinstall, repair
from vidfuse.backbones.load import load_backbone
from vidfuse.errors import UnknownNameError, UserError

NMS = "RuntimeError('operator torchvision::nms does not exist')"
# what a broken package raises while it is imported → what is said of it
BROKEN = {
    NMS: "do not fit each other (operator torchvision::nms does not exist)",
    "AttributeError('partially initialized module')": "do not fit each other (partially",
    "ImportError('undefined symbol: _ZN3c10')": "do not fit each other (undefined symbol: _ZN3c10)",
    "OSError('libcudart.so.12: cannot open')": "do not fit each other (libcudart.so.12: cannot op",
    "ModuleNotFoundError(\"No module named 'PIL'\", name='PIL')": "cannot be imported (No module",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a package that fails to be imported, ``package("torchvision", error)``, first."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, error: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise {error}\n")
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)

    return write


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch):
    """Makes it look as if other versions were installed."""
    return lambda **found: monkeypatch.setattr(imports, "installed_version", found.get)


@pytest.mark.parametrize("error", BROKEN)
def test_a_broken_torchvision_is_told_in_words(package, versions, error):
    package("torchvision", error)
    versions(torch="2.15.0", torchvision="0.20.1")
    with pytest.raises(UserError) as caught:
        import_torchvision()
    assert BROKEN[error] in caught.value.message
    assert "torchvision 0.20.1" in caught.value.message
    assert caught.value.hint == (
        "Run: pip uninstall -y torchvision\n     pip install torch==2.15.0 torchvision"
    )


def test_a_missing_torchvision_is_told(package, versions):
    package("torchvision", "ModuleNotFoundError('No module', name='torchvision')")
    versions(torch="2.15.0")
    with pytest.raises(UserError) as caught:
        load_factory("torchvision.models:resnet18")
    assert caught.value.message == "torchvision is not installed"
    assert caught.value.hint == "Run: pip install torch==2.15.0 torchvision"


def test_a_network_of_ours_needs_no_torchvision(package):
    package("torchvision", NMS)
    assert load_factory("vidfuse.backbones.load:load_backbone").__name__ == "load_backbone"


def test_cutting_another_packages_network_tells_of_torchvision(package, tmp_path):
    package("torchvision", NMS)
    (tmp_path / "theirs.py").write_text(
        "from torch import nn\n"
        "class Network(nn.Module):\n"
        "    def __init__(self, weights=None):\n"
        "        super().__init__()\n"
        "        self.deep = nn.Conv2d(3, 8, 3)\n"
        "    def forward(self, images):\n"
        "        return self.deep(images)\n"
    )
    info = BackboneInfo(factory="theirs:Network", layer="deep")
    with pytest.raises(UserError, match="do not fit each other"):
        load_backbone(BackboneChoice("theirs", "deep", None, published=False, info=info))
    with pytest.raises(UnknownNameError, match="unknown layer 'deap'"):
        load_backbone(BackboneChoice("theirs", "deap", None, published=False, info=info))


# version of torch → how the last line ends
REPAIRS = {
    "2.13.0": "pip install torch==2.13.0 torchvision",
    "2.13.0+cpu": "torch==2.13.0 torchvision --index-url https://download.pytorch.org/whl/cpu",
    "2.9.1+cu126": "torch==2.9.1 torchvision --index-url https://download.pytorch.org/whl/cu126",
    "2.9.1+rocm6.4": "torch==2.9.1 torchvision --index-url https://download.pytorch.org/whl/rocm6.4",
    "2.16.0a0+gitab12": "Run: pip install --force-reinstall torch torchvision",
    "2.16.0+mine": "Run: pip install --force-reinstall torch torchvision",
}


@pytest.mark.parametrize("version", REPAIRS)
def test_torch_is_kept_and_its_own_index_is_asked(versions, version):
    versions(torch=version, torchvision="0.20.1")
    assert repair().endswith(REPAIRS[version])


@pytest.mark.parametrize("missing", [True, False])
def test_a_torch_that_is_broken_or_missing_is_told(tmp_path, missing):
    error = "ModuleNotFoundError('No module', name='torch')" if missing else "OSError('libc10.so')"
    (tmp_path / "torch.py").write_text(f"raise {error}\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from vidfuse.backbones.imports import import_torchvision\n"
        "from vidfuse.errors import UserError\n"
        "try: import_torchvision()\n"
        "except UserError as error: print(error)"
    )
    words = [sys.executable, "-c", code]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].startswith("torch ")
    assert ("is not installed" if missing else "cannot be imported (libc10.so)") in said[0]
    assert said[1] == "Run: pip install --force-reinstall torch torchvision"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install --force-reinstall --no-deps vidfuse"),
        ('{"url": "file:///a%20b/c", "dir_info": {}}', "--no-deps '/a b/c'"),
        ('{"url": "file:///a", "dir_info": {"editable": true}}', "git -C /a restore vidfuse"),
    ],
)
def test_vidfuse_is_repaired_from_where_it_came(monkeypatch, origin, command):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr(imports, "distribution", lambda name: Installed())
    assert reinstall().endswith(command)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_waits_for_the_end_of_an_import(package, tmp_path: Path) -> None:
    package("torchvision", "")
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhole = True\n"
    (tmp_path / "torchvision" / "__init__.py").write_text(code)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            import_torchvision()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert sys.modules["torchvision"].whole
