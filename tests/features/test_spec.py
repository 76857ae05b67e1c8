"""What a feature means, and which features another can be derived from."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from vidfuse.backbones.grid import area_weights, pool
from vidfuse.errors import UserError
from vidfuse.features.build import finest
from vidfuse.features.spec import FeatureSpec, parse_grid

SPEC = FeatureSpec("auto/1", "uniform", 16, 224, "center", "resnet18", "layer4", "ab" * 32, 2)
OTHERS: dict[str, Any] = {
    "decode": "pyav",
    "sampling": "dense",
    "frames": 8,
    "size": 112,
    "crop": "pad",
    "backbone": "resnet34",
    "layer": "layer3",
    "weights": "random",
    "grid": "native",
    "precision": "bf16",
    "fps": 10.0,
    "interpolation": "bicubic",
    "crop_fraction": 0.875,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "window": 16,
    "steps": 2,
    "rate": 15.0,
}


def test_the_digest_is_the_same_in_every_process() -> None:
    code = f"from vidfuse.features.spec import FeatureSpec; print({SPEC!r}.digest)"
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.strip() == SPEC.digest


def test_every_field_changes_the_digest() -> None:
    assert set(OTHERS) == {field.name for field in fields(FeatureSpec)}
    digests = {replace(SPEC, **{name: value}).digest for name, value in OTHERS.items()}
    assert len(digests | {SPEC.digest}) == len(OTHERS) + 1


def test_a_spec_survives_json() -> None:
    for spec in (SPEC, replace(SPEC, fps=10.0), replace(SPEC, **OTHERS)):
        assert FeatureSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("grid", "sources"),
    [
        (1, [1, 2, 4, 8, "native"]),
        (2, [2, 4, 8, "native"]),
        (3, [3, "native"]),
        (4, [4, 8, "native"]),
        (8, [8, "native"]),
        ("native", ["native"]),
    ],
)
def test_a_grid_comes_from_finer_ones_that_it_nests_in(grid: Any, sources: list[Any]) -> None:
    assert [source.grid for source in replace(SPEC, grid=grid).sources] == sources


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [([1, 2], [2]), ([1, 2, 4], [4]), ([2, 3], [2, 3]), ([1, "native"], ["native"]), ([1], [1])],
)
def test_the_fewest_grids_that_serve_all(wanted: list[Any], kept: list[Any]) -> None:
    assert finest(wanted) == kept


@pytest.mark.parametrize("text", ["0", "-1", "65", "two", "", "1.5", "²", "nativ"])
def test_what_is_no_grid(text: str) -> None:
    with pytest.raises(UserError, match="grid"):
        parse_grid(text)


@pytest.mark.parametrize("side", [1, 2, 7, 14, 28])
@pytest.mark.parametrize("grid", [1, 2, 3, 4, 8])
def test_cells_are_of_equal_area(side: int, grid: int) -> None:
    weights = area_weights(side, grid)
    assert np.allclose(weights.sum(1), 1)
    # Every pixel counts as much as every other.
    assert np.allclose(weights.sum(0), grid / side)


@pytest.mark.parametrize(("grid", "finer"), [(1, 2), (1, 3), (2, 4), (1, 8), (4, 8), (2, 6)])
@pytest.mark.parametrize("shape", [(7, 7), (14, 14), (1, 1), (5, 9)])
def test_grids_nest(grid: int, finer: int, shape: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype(np.float32)
    assert np.allclose(pool(pool(maps, finer), grid), pool(maps, grid), atol=1e-6)


def test_grid_1_is_the_average() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 7, 7)).astype(np.float32)
    assert np.allclose(pool(maps, 1)[..., 0, 0], maps.mean((2, 3)), atol=1e-6)
    assert pool(maps, "native") is maps
    assert pool(maps, 7) is maps
