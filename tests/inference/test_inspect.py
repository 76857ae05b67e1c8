"""What a dataset is warned of before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

from vidfuse.features.spec import FeatureConfig
from vidfuse.inspection import inspect_dataset


def problems(tmp_path: Path, *rows: str) -> list[str]:
    for row in rows:
        (tmp_path / row.split(",")[0]).touch()
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["path,label,group", *rows]))
    report = inspect_dataset(manifest, FeatureConfig(), read=False)
    return [line for line in report.problems if "which no split" in line]


def test_classes_that_no_split_can_divide(tmp_path: Path) -> None:
    found = problems(
        *(tmp_path, "a.mp4,run,g1", "b.mp4,run,g2", "c.mp4,jump,g1"),
        *("d.mp4,sit,g3", "e.mp4,sit,g3", "f.mp4,walk,", "g.mp4,walk,"),
    )
    assert found == [
        "classes with a single clip, which no split can divide: jump",
        "classes with a single group, which no split by group can divide: sit",
    ]


def test_others_are_not_mentioned(tmp_path: Path) -> None:
    assert problems(tmp_path, "a.mp4,run,g1", "b.mp4,run,g2", "c.mp4,sit,g1", "d.mp4,sit,") == []
