"""What is extracted before a training, and by how many."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from heard import Heard

import vidfuse
from vidfuse.backbones import load
from vidfuse.errors import UserError
from vidfuse.training import data
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import SIDES, words
from vidfuse.video import decoder

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
QUICK: dict[str, Any] = {
    **CHEAP,
    "workers": 1,
    "epochs": 1,
    "head": "mean",
    "device": "cpu",
    "mirror": True,
}


def test_both_views_share_a_network_and_decode_processes(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(where: Any, name: str) -> None:
        original = getattr(where, name)

        def make(*arguments: Any, **more: Any) -> Any:
            made.append(name)
            return original(*arguments, **more)

        monkeypatch.setattr(where, name, make)

    counted(load, "load_backbone")
    counted(subprocess, "Popen")
    summary = vidfuse.train(dataset, cache=str(tmp_path), out="run", **QUICK)
    assert summary.computed > summary.clips, "both views"
    assert sorted(made) == ["Popen", "load_backbone"]


@pytest.mark.parametrize(("large", "shown"), [(2, True), (200, False)])
def test_reading_a_large_dataset_shows_progress(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, shown: bool
) -> None:
    heard = Heard()
    monkeypatch.setattr(data, "LARGE", large)
    config = TrainConfig(**{**CHEAP, "cache": str(tmp_path)})
    contents = data.TrainingData(dataset, config, heard).contents
    assert (len(heard.tasks), heard.finished) == (shown, shown)
    assert heard.steps == len(contents) * shown


@pytest.mark.parametrize(
    ("name", "sided"),
    [
        *(("left", True), ("TurnRight", True), ("move_left2", True), ("counter-clockwise", True)),
        *(("LEFT hand", True), ("cleft", False), ("bright", False), ("Leftovers", False)),
    ],
)
def test_classes_that_a_mirror_turns_into_their_opposite(name: str, sided: bool) -> None:
    assert bool(SIDES & words(name)) is sided


def test_mirroring_left_and_right_is_warned_of(
    dataset: Path, tmp_path: Path, shared_cache: str
) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "class0").rename(data / "TurnLeft")
    (data / "class1").rename(data / "TurnRight")
    settings: dict[str, Any] = {**QUICK, "cache": shared_cache}
    wanted = "--mirror shows clips of these classes the wrong way round: TurnLeft, TurnRight"
    assert wanted in vidfuse.train(data, out="one", **settings).warnings
    assert wanted in vidfuse.train(data, out="two", folds=2, **settings).warnings
    plain = vidfuse.train(data, out="three", **{**settings, "mirror": False})
    assert wanted not in plain.warnings
    assert wanted not in vidfuse.train(dataset, out="four", **settings).warnings


@pytest.mark.parametrize("work", ["train", "extract", "compare"])
def test_a_grid_finer_than_the_map_is_refused_before_anything_is_decoded(
    dataset: Path, tmp_path: Path, work: str
) -> None:
    """An 8x8 map has no 64x64 cells."""
    settings: dict[str, Any] = {**CHEAP, "cache": str(tmp_path / "cache"), "device": "cpu"}
    more = {"compare": {"heads": "mean", "out": "compared"}, "train": {"out": "run"}}
    refused = {**settings, **more.get(work, {}), "grid": "64"}
    with pytest.raises(UserError, match="grid 64 has more cells than the 8x8 map of resnet18"):
        getattr(vidfuse, work)(dataset, **refused)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_cached_features_need_no_decoder(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {**QUICK, "cache": str(tmp_path), "decoder": "pyav"}
    vidfuse.train(dataset, out="one", **settings)
    monkeypatch.setattr(decoder, "installed", lambda name: False)
    monkeypatch.setattr("vidfuse.video.pool.installed", lambda name: False)
    assert vidfuse.train(dataset, out="two", **settings).computed == 0
    with pytest.raises(UserError, match="not installed"):
        vidfuse.train(dataset, out="three", **{**settings, "size": 48})
