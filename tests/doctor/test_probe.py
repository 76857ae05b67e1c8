"""Libraries that are broken in all the ways in which libraries are."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import pytest

from vidfuse.doctor.probe import probe


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a package before the real one: ``package("av", "raise ImportError")``."""
    kept = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), kept))))
    return lambda name, code: (tmp_path / f"{name}.py").write_text(code)


def test_a_sound_library_says_its_version():
    found = probe("av")
    assert (found.error, found.missing) == (None, False)
    assert found.values["version"].split(".")[0].isdigit()
    assert "libavcodec" in found.values["libraries"]


def test_what_a_library_prints_does_not_damage_the_answer(package):
    package("decord", "print('{\"values\": 1}')\n__version__ = '9'\nprint('hello')")
    assert probe("decord").values["version"] == "9"


# how importing goes wrong → what is said of it
WAYS = {
    "raise ImportError('libavcodec.so.62: cannot open')": "libavcodec.so.62: cannot open",
    "raise SystemError('odd')": "odd",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "importing it crashed (SIGSEGV)",
    "import os; os._exit(3)": "importing it ended with exit code 3",
    "import os; os._exit(0)": "importing it ended the process",
}


@pytest.mark.parametrize("code", WAYS)
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_broken_library_is_told(package, code):
    package("av", code)
    found = probe("av")
    assert (found.values, found.error, found.missing) == ({}, WAYS[code], False)


def test_a_library_that_hangs_is_ended(package):
    package("decord", "import time; time.sleep(60)")
    assert probe("decord", limit=2).error == "importing it took longer than 2 s"


def test_a_missing_library_is_known_from_a_broken_one(package):
    package("decord", "raise ModuleNotFoundError('No module named decord', name='decord')")
    assert probe("decord").missing
    package("decord", "import no_such_module_of_decord")
    assert not probe("decord").missing


def test_torch_and_torchvision_say_how_they_are_repaired(package):
    package("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    found = probe("torchvision")
    assert "do not fit each other" in (found.error or "")
    assert "pip install torch==" in (found.hint or "")
    package("torch", "raise OSError('libc10.so')")
    found = probe("torch")
    assert "libc10.so" in (found.error or "")
    assert found.hint == "Run: pip install --force-reinstall torch torchvision"


def test_one_broken_package_does_not_hide_the_others(package):
    package("numpy", "raise ImportError('numpy.core.multiarray failed to import')")
    found = probe("packages")
    assert found.error is None
    assert "numpy.core.multiarray" in found.values["errors"]["numpy"]
    assert "typer" in found.values["versions"]


@pytest.mark.skipif(
    tuple(int(part) for part in version("torch").split(".")[:2]) < (2, 11),
    reason="torchcodec is not asked with a torch before 2.11",
)
def test_torchcodec_says_what_it_lacks(package):
    package("torchcodec", "ffmpeg_major_version = None")
    found = probe("torchcodec")
    assert "shared libraries of FFmpeg" in (found.error or "")
    assert "apt-get install ffmpeg" in (found.hint or "")
    package("torchcodec", "raise ModuleNotFoundError('no torchcodec', name='torchcodec')")
    assert probe("torchcodec").missing
