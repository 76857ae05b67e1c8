"""The table of decoders says what pyproject.toml says, and its readers are there."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from vidfuse.video.backends import BACKENDS, POLICIES, not_installed

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
    "project"
]


def requirement(package: str, extra: str | None) -> str:
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    (found,) = [line for line in lines if re.match(rf"{package}\b", line)]
    return found


@pytest.mark.parametrize("name", BACKENDS)
def test_a_decoder_is_installed_as_the_table_says(name):
    known = BACKENDS[name]
    _, _, marker = requirement(known.package, known.extra).partition(";")
    platforms = re.findall(r"sys_platform == '(\w+)' and platform_machine == '(\w+)'", marker)
    assert set(platforms) == (known.wheels or set())
    for package, numbers in known.minimum.items():
        oldest = ".".join(map(str, numbers))
        assert requirement(package, known.extra).startswith(f"{package}>={oldest}")


@pytest.mark.parametrize("name", BACKENDS)
def test_its_reader_is_there(name):
    known = BACKENDS[name]
    pytest.importorskip(known.module)
    module, _, reader = known.reader.partition(":")
    try:
        assert hasattr(import_module(module), reader)
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{known.module} does not work here: {error}")


def test_policies_are_those_that_cache_keys_name():
    assert {
        "auto": ("auto/1", ("pyav", "decord")),
        **{name: (name, (name,)) for name in ("pyav", "decord", "decord-gpu")},
        **{name: (name, (name,)) for name in ("torchcodec", "torchcodec-cuda")},
    } == POLICIES


def test_the_next_step_where_one_is_missing():
    hints = {name: not_installed(name).hint for name in BACKENDS}
    assert hints["pyav"] == "Run: pip install --force-reinstall av"
    assert hints["decord"] == "Leave --decoder at 'auto' (decord has wheels for x86-64 only)."
    assert (hints["torchcodec"] or "").startswith("Run: pip install 'vidfuse[torchcodec]'")
    assert hints["images"] == "Run: pip install --force-reinstall pillow"
