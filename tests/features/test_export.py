"""Features for other tools: names of files, and folders that cannot be written."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import Heard

import vidfuse
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.video.pool import DecodePool

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}


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
    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("something was decoded")

    monkeypatch.setattr(DecodePool, "__init__", never)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(UserError, match=f"cannot write {out} "):
            vidfuse.extract(dataset, out=out, cache=str(tmp_path / "cache"), **CHEAP)
    with pytest.raises(UserError, match="cannot write "):
        vidfuse.extract(dataset, heads=["lstm", "rnn"], out=tmp_path / "file", **CHEAP)


def test_segments_that_end_behind_their_video_are_counted(
    make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    """As in KTH, whose list of segments is taken as published."""
    for person in (11, 12, 19, 2):
        for number, action in enumerate(("boxing", "walking")):
            make_clip(
                tmp_path / f"kth/person{person:02}_{action}_d1.avi", seed=person + number
            )  # of 1.2 s
    lines = [f"person{p:02}_boxing_d1 frames 1-20, 21-45" for p in (11, 12, 19, 2)]
    lines += [f"person{p:02}_walking_d1 frames 1-30" for p in (11, 12, 19, 2)]
    lines[0] = "person11_boxing_d1 frames 1-20, 21-45, 60-70"
    (tmp_path / "kth" / "00sequences.txt").write_text("\n".join(lines))
    heard = Heard()
    report = vidfuse.extract(tmp_path / "kth", reporter=heard, workers=1, **CHEAP)
    assert (report.clips, report.failed) == (13, 1), "one begins behind the end"
    short = [line for line in heard.warnings if "read with warnings" in line]
    assert len(short) == 1
    assert short[0].startswith("4 clips were read with warnings, such as ")
    assert short[0].endswith("[0.8-1.8]: the segment ends at 1.8 s, and the video at 1.20 s")
    for run in ("as they are", "from the cache"):
        heard = Heard()
        vidfuse.train(
            tmp_path / "kth", out=tmp_path / run, epochs=1, max_failed=0.5, reporter=heard,
            workers=1, **CHEAP,
        )  # fmt: skip
        assert any(line.startswith("3 clips were read with warnings") for line in heard.warnings)


def test_cells_that_a_spreadsheet_would_compute_are_text(
    make_clip: Callable[..., Path], tmp_path: Path, shared_cache: str
) -> None:
    clip = make_clip("-1+2.mkv")
    out = tmp_path / "out"
    formula = Clip(clip, label="=1+2", group="@a")
    vidfuse.extract([formula], out=out, cache=shared_cache, workers=1, **CHEAP)
    (row,) = index(out)
    assert (row["label"], row["group"]) == ("'=1+2", "'@a")
    assert row["file"] == "_1+2.npy"
    assert (out / row["file"]).exists()


def test_a_folder_with_videos_beside_its_folders_is_a_tree_of_clips(
    dataset: Path, tmp_path: Path, shared_cache: str
) -> None:
    clips = sorted(dataset.rglob("*.mkv"))[:4]
    mixed = tmp_path / "mixed"
    (mixed / "more").mkdir(parents=True)
    for number, clip in enumerate(clips):
        shutil.copy(clip, mixed / ("more" if number == 3 else "") / f"{number}.mkv")
    heard = Heard()
    options: dict[str, Any] = {"cache": shared_cache, "workers": 1, **CHEAP}
    report = vidfuse.extract(mixed, out=tmp_path / "a", reporter=heard, **options)
    assert (report.clips, report.failed) == (4, 0)
    assert [row["label"] for row in index(tmp_path / "a")] == [""] * 4
    assert "clips without classes" in heard.infos[0]
    classes = vidfuse.extract(mixed, out=tmp_path / "b", layout="class-folders", **options)
    assert classes.clips == 1
    assert [row["label"] for row in index(tmp_path / "b")] == ["more"]
