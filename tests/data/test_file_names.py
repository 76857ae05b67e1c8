"""Names for the files of a folder, one for each video."""

from __future__ import annotations

from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.file_names import FileNames
from vidfuse.features.export import names_of


def test_no_name_comes_twice(tmp_path: Path) -> None:
    """Neither in other letters nor as the numbered name of another one."""
    names = FileNames(tmp_path, ".vtt")
    stems = ("same", "same~2", "Same", "same", "other")
    assert [names.free(stem) for stem in stems] == [
        "same.vtt",
        "same~2.vtt",
        "Same~3.vtt",
        "same~4.vtt",
        "other.vtt",
    ]


def test_long_names_are_written(tmp_path: Path) -> None:
    """With as many numbers behind them as there are, and what is never cut off."""
    names = FileNames(tmp_path, ".TextGrid")
    found = [names.free("ü" * 127), names.free("ü" * 127), names.free("x" * 255, "_3-4")]
    assert len(set(found)) == 3
    assert found[2].endswith("_3-4.TextGrid")
    for name in found:
        (tmp_path / name).touch()


def test_arrays_have_the_same_scheme(tmp_path: Path) -> None:
    clips = [Clip(Path("a/x.mp4")), Clip(Path("b/x.mp4")), Clip(Path("x~2.mp4"), start=1.5)]
    assert list(names_of(clips, tmp_path).values()) == ["x.npy", "x~2.npy", "x_2_1.5.npy"]
