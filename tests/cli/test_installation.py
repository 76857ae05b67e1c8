"""The program where torch and torchvision do not fit each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from program import NETWORK

PACKAGE = Path(__file__).resolve().parents[2]


@pytest.fixture
def misfit(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing torchvision fails as it does beside a CPU-only torch."""
    package = tmp_path / "broken" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    return {"PYTHONPATH": os.pathsep.join((str(package.parent), str(PACKAGE)))}


def check(answer) -> None:
    assert (answer.code, answer.out) == (2, "")
    first, *others = [
        line for line in answer.err.splitlines() if "fit each" in line or "pip" in line
    ]
    assert first.startswith("Error: torch ")
    assert first.endswith("do not fit each other (operator torchvision::nms does not exist)")
    assert others[0].startswith("Run: pip ")
    assert others[-1].lstrip().startswith("pip install torch==")
    assert "Traceback" not in answer.err


def test_extraction_says_how_to_repair_it(vidfuse, clips, misfit, tmp_path):
    fresh = misfit | {"VIDFUSE_CACHE": str(tmp_path / "fresh")}
    check(vidfuse("extract", clips[0], *NETWORK, "--frames", "4", env=fresh))


def test_training_says_so_before_it_downloads_weights(vidfuse, dataset, misfit, tmp_path):
    fresh = misfit | {"TORCH_HOME": str(tmp_path / "torch")}
    answer = vidfuse("train", dataset, "--backbone", "resnet18", env=fresh)
    check(answer)
    assert "Downloading" not in answer.err


def test_what_is_in_the_cache_needs_no_torchvision(vidfuse, dataset, misfit):
    assert vidfuse("extract", dataset, *NETWORK, "--frames", "4").code == 0
    again = vidfuse("extract", dataset, *NETWORK, "--frames", "4", env=misfit)
    assert again.code == 0, again.err
