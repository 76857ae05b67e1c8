"""What a dataset is warned of before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidfuse.data.clip import Clip
from vidfuse.features.spec import FeatureConfig
from vidfuse.inspection import find_leaks, inspect_dataset
from vidfuse.results import Leak
from vidfuse.video.frames import Frames


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


def test_how_much_room_features_take(tmp_path: Path) -> None:
    """16 frames of two clips, as float16."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").touch()
    told = inspect_dataset(tmp_path, FeatureConfig(), read=False).feature_bytes
    assert told["thin_efficientnet"] == {
        str(grid): 2 * 16 * 1280 * grid**2 * 2 for grid in (1, 2, 4)
    }
    assert told["resnet50"]["2"] == 2 * 16 * 2048 * 4 * 2


def leaks(rates: dict[str, list[float]], sizes: dict[str, list[int]]) -> dict[str, Leak]:
    """Leaks of four classes x 10 groups, of which each class has some rates and some widths."""
    rng = np.random.default_rng(1)
    clips = []
    for group in range(10):
        for label in "abcd":
            fps, width = rng.choice(rates[label]), int(rng.choice(sizes[label]))
            count = int(rng.integers(50, 500))
            times = np.arange(1) / fps
            read = Frames(
                np.zeros((1, 2, 2, 3), np.uint8), times, 0.0, count / fps, count, width, 240, "av"
            )
            clips.append((Clip(Path(f"{label}{group}.mp4"), label, f"g{group}"), read))
    return {leak.metadata: leak for leak in find_leaks(clips)}


def test_a_frame_rate_that_tells_the_class_is_named() -> None:
    same = {name: [320] for name in "abcd"}
    found = leaks({"a": [25], "b": [25], "c": [29.97], "d": [29.97]}, same)
    assert found["frame rate"].accuracy == 0.5  # of two classes with a rate, one is named
    assert found["frame rate"].majority <= 0.25
    assert found["frame rate"].tells
    assert "frame size" not in found  # which is the same everywhere
    assert not found["number of frames"].tells


def test_rates_and_sizes_that_tell_nothing() -> None:
    found = leaks({name: [25, 30] for name in "abcd"}, {name: [320, 640] for name in "abcd"})
    assert not any(leak.tells for leak in found.values())


def test_nothing_is_said_of_one_class_or_one_group() -> None:
    blank = Frames(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), 0.0, 1.0, 25, 320, 240, "av")
    assert find_leaks([(Clip(Path(f"{n}.mp4"), "a", f"g{n}"), blank) for n in range(4)]) == []
    assert find_leaks([(Clip(Path(f"{n}.mp4"), str(n % 2), "g"), blank) for n in range(4)]) == []
