"""A model that the tests of this folder use, trained once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import vidfuse
from vidfuse.rpc import Child
from vidfuse.video import pool

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
Train = Callable[..., str]


@pytest.fixture(scope="session")
def train(shared_cache: str, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains for a few epochs and returns the run folder."""

    def run(dataset: Path, **settings: Any) -> str:
        out = str(tmp_path_factory.mktemp("runs") / "run")
        options = {**CHEAP, "epochs": 2, "workers": 1, "cache": shared_cache, "out": out}
        return str(vidfuse.train(dataset, **{**options, **settings}).run)

    return run


@pytest.fixture(scope="session")
def run(train: Train, dataset: Path) -> str:
    """The run folder of a model of ``dataset``, by a random split."""
    return train(dataset)


@pytest.fixture(scope="session")
def manifest(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dataset`` with a split of its own: of every four clips two, one and one."""
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    rows = ["path,label,group,split"]
    for i, clip in enumerate(sorted(dataset.rglob("*.mkv"))):
        part = ("train", "train", "val", "test")[i % 4]
        rows.append(f"{os.fspath(clip)},{clip.parent.name},g{i},{part}")
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """The decode processes that the test starts."""
    processes: list[Child] = []

    class Counted(Child):
        def __init__(self, target: str, arguments: Sequence[str]) -> None:
            super().__init__(target, arguments)
            processes.append(self)

    monkeypatch.setattr(pool, "Child", Counted)
    return processes
