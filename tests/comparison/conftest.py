"""A comparison on tiny clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vidfuse
from vidfuse.comparison.fit_store import FitResult
from vidfuse.comparison.fits import FitRunner
from vidfuse.comparison.plan import Task

QUICK: dict[str, Any] = {
    **{"backbone": "resnet18", "weights": "random", "layer": "layer1", "size": 32, "frames": 4},
    **{"heads": "middle", "seeds": 2, "folds": 2, "epochs": 2, "lrs": "0.01", "dropouts": "0.2"},
    **{"workers": 1, "jobs": 1, "device": "cpu"},
}
Compare = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def grouped(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight groups with a clip of each class."""
    clips = sorted(dataset.rglob("*.mkv"), key=lambda path: path.name)
    rows = [f"{path},{path.parent.name},g{i // 3}" for i, path in enumerate(clips)]
    manifest = tmp_path_factory.mktemp("grouped") / "grouped.csv"
    manifest.write_text("\n".join(["path,label,group", *rows]))
    return manifest


@pytest.fixture
def compare(grouped: Path, shared_cache: str, tmp_path: Path) -> Compare:
    """Compares heads on ``grouped``, quickly unless told otherwise."""

    def run(data: Path = grouped, **settings: Any) -> dict[str, Any]:
        options = {**QUICK, "cache": shared_cache, "out": str(tmp_path / "out")}
        reporter = settings.pop("reporter", None)
        return vidfuse.compare(data, reporter=reporter, **{**options, **settings}).to_dict()

    return run


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The tasks that were fitted here, in their order."""
    tasks: list[Task] = []
    run = FitRunner.run

    def counted(self: FitRunner, task: Task, *more: Any) -> FitResult:
        tasks.append(task)
        return run(self, task, *more)

    monkeypatch.setattr(FitRunner, "run", counted)
    return tasks
