"""A tiny dataset, a model trained on it, and a way to run the program as a process."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from program import CLASSES, GROUPS, TINY, Answer, Vidfuse, run_vidfuse, write_moving_square


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of two classes, two clips each, with a manifest."""
    root = tmp_path_factory.mktemp("data") / "squares"
    rows = []
    for index, group in enumerate(GROUPS):
        for label, step in zip(CLASSES, (-4, 4), strict=True):
            for take in range(2):
                name = f"{label}/{group}_{take}.mp4"
                write_moving_square(root / name, step, seed=10 * index + take)
                rows.append((name, label, group))
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return root


@pytest.fixture(scope="session")
def clips(dataset: Path) -> list[Path]:
    return sorted(dataset.glob("*/*.mp4"))


@pytest.fixture(scope="session")
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all tests share, so that few of them decode anything."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def vidfuse(feature_cache: Path, tmp_path: Path) -> Vidfuse:
    """Runs the program in ``tmp_path``: ``vidfuse("predict", "a.mp4", stdin=..., env=...)``."""

    def run(*arguments: str | Path, cwd: Path | None = None, **options: Any) -> Answer:
        return run_vidfuse(feature_cache, *arguments, cwd=cwd or tmp_path, **options)

    return run


@dataclass(frozen=True)
class Trained:
    """A finished training run: its folder, and what the program printed."""

    run: Path
    answer: Answer

    @property
    def model(self) -> Path:
        return self.run / "model.safetensors"


@pytest.fixture(scope="session")
def trained(
    dataset: Path, feature_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    run = tmp_path_factory.mktemp("trained") / "run"
    arguments = ("train", dataset, *TINY, "--out", run)
    answer = run_vidfuse(feature_cache, *arguments, cwd=run.parent)
    assert answer.code == 0, answer.err
    return Trained(run, answer)
