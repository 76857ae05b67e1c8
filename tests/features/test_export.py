"""Features for other tools: names of files, and folders that cannot be written."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import vidfuse
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.video.workers import DecodePool

CHEAP = {"backbone": "resnet18", "weights": "random", "layer": "layer1", "size": 32, "frames": 4}


def index(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_names_as_long_as_can_be(dataset: Path, tmp_path: Path, shared_cache: str) -> None:
    first, second = sorted(dataset.rglob("*.mkv"))[:2]
    name = "x" * 251 + ".mkv"
    clips = []
    for folder, clip in (("a", first), ("b", second)):
        (tmp_path / folder).mkdir()
        path = shutil.copy(clip, tmp_path / folder / name)
        clips += [Clip(Path(path)), Clip(Path(path), start=0.0, end=0.5)]
    out = tmp_path / "out"
    vidfuse.extract(clips, out=out, cache=shared_cache, workers=1, **CHEAP)
    rows = index(out)
    names = [row["file"] for row in rows]
    assert len({each.lower() for each in names}) == 4
    assert max(map(len, names)) <= 255
    assert sum("_0-0.5" in each for each in names) == 2, "the segment is still told"
    assert sorted(names) == sorted(set(os.listdir(out)) - {"index.csv"})
    assert all(np.load(out / each).ndim == 4 for each in names)


def test_names_that_are_short_enough_stay(dataset: Path, tmp_path: Path, shared_cache: str) -> None:
    clip = sorted(dataset.rglob("*.mkv"))[0]
    clips = [Clip(clip), Clip(clip, start=0.0, end=0.5)]
    vidfuse.extract(clips, out=tmp_path / "out", cache=shared_cache, workers=1, **CHEAP)
    assert [row["file"] for row in index(tmp_path / "out")] == [
        *(f"{clip.stem}.npy", f"{clip.stem}_0-0.5.npy")
    ]


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was decoded")

    monkeypatch.setattr(DecodePool, "__init__", never)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(UserError, match=f"cannot write {out} "):
            vidfuse.extract(dataset, out=out, cache=str(tmp_path / "cache"), **CHEAP)
    with pytest.raises(UserError, match="cannot write "):
        vidfuse.extract(dataset, heads=["lstm", "rnn"], out=tmp_path / "file", **CHEAP)
