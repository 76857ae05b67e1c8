"""Which timelines and videos belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import read_timelines, write_timelines
from vidfuse.data.timelines.pairing import find_video, namesake, read_annotations
from vidfuse.errors import InputError, UserError


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_those_named_by_the_user_come_first_then_the_named_file_then_those_beside(tmp_path):
    labels, other = tmp_path / "labels", tmp_path / "other"
    touch(labels / "a.mp4", other / "a.mp4", labels / "b.mp4", other / "b.avi", labels / "c.mkv")
    named = [other / "a.mp4", other / "b.avi"]
    assert find_video(Path("a.mp4"), labels, named) == other / "a.mp4"
    assert find_video(Path("a.mp4"), labels, [*named, labels / "a.mp4"]) == labels / "a.mp4"
    assert find_video(Path("a.mp4"), labels) == labels / "a.mp4"
    assert find_video(Path("../other/a.mp4"), labels, named) == labels / "../other/a.mp4"
    assert find_video(Path("b"), labels, named) == other / "b.avi"
    assert find_video(Path("D:\\rat\\b.mov"), labels, named) == other / "b.avi"
    assert find_video(Path("c"), labels, named) == labels / "c.mkv"
    touch(labels / "frames/1.png", labels / "frames/2.png", labels / "empty/notes.txt")
    assert find_video(Path("frames"), labels) == labels / "frames"
    assert isinstance(find_video(Path("empty"), labels), InputError)
    for videos, alone in ((named, True), (named[:1], False)):
        missing = find_video(Path("d.mp4"), labels, videos, alone=alone)
        assert isinstance(missing, InputError)
    assert find_video(Path("d.mp4"), labels, named[:1], alone=True) == named[0]


def test_paths_relative_to_the_working_folder_are_found(tmp_path, monkeypatch):
    touch(tmp_path / "clips/a.mp4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels").mkdir()
    assert find_video(Path("clips/a.mp4"), Path("labels"), []) == Path("clips/a.mp4")


def test_names_decide_from_the_whole_path_down_to_the_stem():
    others = [Path("x/a.mp4"), Path("y/a.mp4"), Path("y/b.c.mp4"), Path("b.mp4")]
    assert namesake(Path("y/a.mp4"), others, Path) == Path("y/a.mp4")
    assert namesake(Path("z/b.mp4"), others, Path) == Path("b.mp4")
    assert namesake(Path("b.c"), others, Path) == Path("y/b.c.mp4")
    assert namesake(Path("c"), others, Path) is None
    several = namesake(Path("a.mp4"), others, Path)
    assert isinstance(several, InputError)
    assert several.reason == "several have that name: x/a.mp4, y/a.mp4"


def test_a_folder_of_files_is_read(tmp_path):
    for name in ("one", "two"):
        video = Timeline(None, [Segment(0, 1, name)])
        write_timelines([video], tmp_path / f"{name}.vtt")
    touch(tmp_path / ".hidden.vtt", tmp_path / "one.mp4")
    found = read_annotations(tmp_path)
    assert [(str(each.path), each.segments[0].label) for each in found.timelines] == [
        ("one", "one"),
        ("two", "two"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file of annotations"):
        read_annotations(tmp_path / "empty")


def test_a_row_of_another_group_is_named_and_kept(tmp_path):
    (tmp_path / "a.csv").write_text(
        "path,start,end,label,group\na.mp4,0,1,x,g1\na.mp4,1,2,y,g2\na.mp4,2,3,z,\n"
    )
    found = read_timelines(tmp_path / "a.csv")
    (video,) = found.timelines
    assert [each.label for each in video.segments] == ["x", "y", "z"]
    assert video.group == "g1"
    assert found.problems == [
        "a.csv, line 3: group 'g2', though the video is of 'g1', which counts"
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_groups_are_written_and_read(tmp_path, name):
    videos = [
        Timeline(Path("a.mp4"), [Segment(0, 1, "x")], group="rat 7"),
        Timeline(Path("b.mp4"), [Segment(0, 1, "x")]),
    ]
    write_timelines(videos, tmp_path / name)
    assert [each.group for each in read_timelines(tmp_path / name).timelines] == ["rat 7", None]
