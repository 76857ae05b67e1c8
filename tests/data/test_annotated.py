"""Videos with annotations, from manifests, files of annotations and folders of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vidfuse.data.annotated import AnnotatedVideo, read_annotated
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import write_timelines
from vidfuse.errors import UserError


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_manifest_with_times(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        touch(tmp_path / name)
    rows = "a.mp4,run,1,2.5,p1\na.mp4,sit,0,1,p1\nb.mp4,run,,,p2\n"
    manifest = touch(tmp_path / "all.csv", "path,label,start,end,group\n" + rows)
    first, second = read_annotated(manifest)[0]
    assert first.path == tmp_path / "a.mp4"
    assert first.group == "p1"
    assert first.segments == [Segment(0, 1, "sit"), Segment(1, 2.5, "run")]
    assert second.segments == [Segment(0, math.inf, "run")]


def test_files_beside_their_videos(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "b [1].avi")
    touch(tmp_path / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nrun\n")
    touch(tmp_path / "b [1].vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nsit\n")
    touch(tmp_path / "lost.srt", "1\n00:00:01,000 --> 00:00:02,000\nrun\n")
    touch(tmp_path / "readme.md")
    videos, problems = read_annotated(tmp_path)
    assert [video.path.name for video in videos] == ["a.mp4", "b [1].avi"]
    assert [video.segments[0].label for video in videos] == ["run", "sit"]
    assert problems == ["lost.srt: lost: there is no such video, nor one of that name"]


def test_records_of_predict(tmp_path: Path) -> None:
    """What is predicted can be corrected by hand, and learned from."""
    touch(tmp_path / "a.mp4")
    record = '{"path": "a.mp4", "segments": [{"start": 0, "end": 2, "label": "run"}]}'
    (video,), _ = read_annotated(touch(tmp_path / "all.jsonl", record))
    assert video.segments == [Segment(0, 2, "run")]


def test_nothing_says_what_happens(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="no video with annotations"):
        read_annotated(tmp_path)


def test_the_class_at_a_moment() -> None:
    segments = [
        *(Segment(0, 4, "sit"), Segment(0, 4, "wait"), Segment(1, 2, "wave")),
        *(Segment(5, 5, "click"), Segment(6, math.inf, "run")),
    ]
    video = AnnotatedVideo(Path("a.mp4"), segments)
    moments = {0.0: "sit", 1.0: "wave", 1.5: "wave", 2.0: "sit", 4.0: None, 5.0: None, 6.5: "run"}
    assert dict(zip(moments, video.labels_at(list(moments)), strict=True)) == moments


@pytest.mark.parametrize("name", ["events.tsv", "events.csv"])
def test_events_of_boris_are_no_manifest(tmp_path: Path, name: str) -> None:
    video = touch(tmp_path / "a.mp4")
    segments = [Segment(0, 1, "run"), Segment(2, 3, "sit")]
    write_timelines([Timeline(video, segments)], tmp_path / name, format="boris-events")
    (found,), problems = read_annotated(tmp_path / name)
    assert (found.path, found.segments, problems) == (video, segments, [])


def test_a_table_without_a_path_is_of_the_video_of_its_name(tmp_path: Path) -> None:
    video = touch(tmp_path / "a.mp4")
    table = touch(tmp_path / "a.csv", "start;end;label\n0;1;run\n")
    assert read_annotated(table)[0] == [AnnotatedVideo(video, [Segment(0, 1, "run")])]
    with pytest.raises(UserError, match="there is no column 'path'"):
        read_annotated(touch(tmp_path / "b.csv", "video;class\na.mp4;run\n"))


def test_a_video_is_of_one_group_and_split(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    rows = "a.mp4,run,0,1,,train\na.mp4,sit,1,2,p2,test\na.mp4,run,2,3,p1,train\n"
    table = touch(tmp_path / "all.csv", "path,label,start,end,group,split\n" + rows)
    (video,), problems = read_annotated(table)
    assert (video.group, video.split) == ("p2", "train")
    assert problems == [
        "a.mp4: group p2 and p1; a video has one: p2 for all of it",
        "a.mp4: split train and test; a video has one: train for all of it",
    ]


def test_a_video_is_one_however_it_is_named(tmp_path: Path) -> None:
    """Else it could stand on two sides of a split."""
    video = touch(tmp_path / "a.mp4")
    rows = f"path,label,start,end\na.mp4,run,1,2\n{video},sit,2,3\n./a.mp4,lie,3,4\n"
    (only,), problems = read_annotated(touch(tmp_path / "all.csv", rows))
    assert [each.label for each in only.segments] == ["run", "sit", "lie"]
    assert problems == []
    file = tmp_path / "all.jsonl"
    named = {"a.mp4": Segment(1, 2, "run"), str(video): Segment(2, 3, "sit")}
    write_timelines([Timeline(Path(name), [each]) for name, each in named.items()], file)
    (only,), problems = read_annotated(file)
    assert [each.label for each in only.segments] == ["run", "sit"]


def test_two_files_of_annotations_of_one_video(tmp_path: Path) -> None:
    """Such as the predictions that were written beside it."""
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nrun\n")
    touch(tmp_path / "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nsit\n")
    with pytest.raises(UserError, match=r"a\.mp4 has two files of annotations: a\.srt and a\.vtt"):
        read_annotated(tmp_path)


def test_a_file_that_cannot_be_read_costs_itself(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        touch(tmp_path / name)
    touch(tmp_path / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nrun\n")
    touch(tmp_path / "b.csv", "")
    (only,), problems = read_annotated(tmp_path)
    assert only.path == tmp_path / "a.mp4"
    assert any("b.csv" in line for line in problems)
    with pytest.raises(UserError, match=r"b\.csv"):
        read_annotated(tmp_path / "b.csv")


def test_groups_of_annotations_are_those_of_their_videos(tmp_path):
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "b.mp4")
    touch(
        tmp_path / "t.jsonl",
        '{"path": "a.mp4", "group": "rat 7", "segments": []}\n{"path": "b.mp4", "segments": []}\n',
    )
    videos, _ = read_annotated(tmp_path / "t.jsonl")
    assert [video.group for video in videos] == ["rat 7", None]
