"""``vidfuse predict --timeline``: what happens when in videos longer than a clip."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from program import CLASSES, Vidfuse, write_moving_square

from vidfuse.data.timelines import read_timelines

WINDOW = ("--window", 0.8, "--step", 0.1)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square that moves one way, and then the other."""
    return write_moving_square(
        tmp_path_factory.mktemp("long") / "there and back.mp4", 4, seed=70, frames=48, turn=24
    )


def records_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_video_has_segments(vidfuse: Vidfuse, trained, video):
    answer = vidfuse(
        "predict", video, "--timeline", "--model", trained.run, *WINDOW, "--format", "jsonl"
    )
    assert answer.code == 0, answer.err
    (record,) = records_of(answer.out)
    assert list(record) == ["path", "ok", "duration", "fps", "segments", "warnings", "error"]
    assert (record["ok"], record["error"], record["warnings"]) == (True, None, [])
    segments = record["segments"]
    assert segments[0]["start"] == 0
    assert segments[-1]["end"] == record["duration"]
    assert all(one["end"] == two["start"] for one, two in pairwise(segments))
    assert {each["label"] for each in segments} <= set(CLASSES)
    assert all(0 < each["score"] <= 1 for each in segments)


def test_a_timeline_ends_with_its_video(vidfuse: Vidfuse, trained, video):
    """Also where the last sample ends before it: 4.8 s are 10.29 samples here."""
    command = ("predict", video, "--timeline", "--model", trained.run, "--window", 1.866)
    (record,) = records_of(vidfuse(*command, "--format", "jsonl").out)
    assert record["segments"][-1]["end"] == record["duration"] == pytest.approx(4.8)


def test_forms(vidfuse: Vidfuse, trained, video, tmp_path):
    command = ("predict", video, tmp_path / "none.mp4", "--timeline", "--model", trained.run)
    text = vidfuse(*command, *WINDOW)
    assert text.code == 1
    lines = [line.split("\t") for line in text.out.splitlines()]
    assert all(line[0] == str(video) and len(line) == 5 for line in lines[:-1])
    assert lines[-1][:5] == [str(tmp_path / "none.mp4"), "", "", "", ""]
    assert "no such" in lines[-1][5].lower()
    table = vidfuse(*command, *WINDOW, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["label"] for row in rows] == [line[3] for line in lines]
    whole = vidfuse(*command, *WINDOW, "--format", "json")
    answer = json.loads(whole.out)
    assert [each["ok"] for each in answer["records"]] == [True, False]
    assert answer["timings"]["total"] > 0


def test_rules_shape_the_segments(vidfuse: Vidfuse, trained, video):
    command = ("predict", video, "--timeline", "--model", trained.run, "--format", "jsonl", *WINDOW)
    (plain,) = records_of(vidfuse(*command).out)
    (one,) = records_of(vidfuse(*command, "--min-duration", 9).out)
    assert len(one["segments"]) == 1
    (nothing,) = records_of(vidfuse(*command, "--background", ",".join(CLASSES)).out)
    assert nothing["segments"] == []
    (sure,) = records_of(vidfuse(*command, "--threshold", 1).out)
    assert len(sure["segments"]) <= len(plain["segments"])


def test_nothing_is_computed_twice(vidfuse: Vidfuse, trained, video):
    command = ("predict", video, "--timeline", "--model", trained.run, *WINDOW)
    first = vidfuse(*command, "--format", "json")
    again = vidfuse(*command, "--format", "json")
    assert json.loads(first.out)["records"] == json.loads(again.out)["records"]
    assert "forward" not in json.loads(again.out)["timings"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--window", 2), "--window is for timelines"),
        (("--min-duration", 2), "--min-duration is for timelines"),
        (("--timeline", "--background", "nothing"), "the model knows no class 'nothing'"),
        (("--timeline", "--threshold", 0.3, "--low-threshold", 0.4), "is above --threshold"),
        (("--timeline", "--views", 2), "a timeline has no views"),
        (("--timeline", "--window", 0), "window"),
        (("--timeline", "--window", 1e-4), "samples in a window of 0.0001 s"),
    ],
)
def test_wrong_settings(vidfuse: Vidfuse, trained, video, arguments, said):
    answer = vidfuse("predict", video, "--model", trained.run, *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert not answer.out


def test_files_for_annotation_tools(vidfuse: Vidfuse, trained, video, tmp_path):
    """One file of all videos, or one of each; a video that cannot be read is in none."""
    command = ("predict", video, "none.mp4", "--timeline", "--model", trained.run, *WINDOW)
    answer = vidfuse(*command, "--out", "all.csv", "--format", "jsonl")
    assert answer.code == 1
    assert "Written: all.csv" in answer.err
    (record, _) = records_of(answer.out)
    (timeline,) = read_timelines(tmp_path / "all.csv").timelines
    assert timeline.path == video
    assert [(each.start, each.end, each.label, each.score) for each in timeline.segments] == [
        (each["start"], each["end"], each["label"], each["score"]) for each in record["segments"]
    ]
    answer = vidfuse(*command, "--out", "subtitles", "--out-format", "webvtt")
    assert [path.name for path in (tmp_path / "subtitles").iterdir()] == ["there and back.vtt"]


def test_one_file_for_several_videos_ends_the_work(vidfuse: Vidfuse, trained, video, tmp_path):
    command = ("predict", video, video, video, "--timeline", "--model", trained.run, *WINDOW)
    answer = vidfuse(*command, "--out", "a.vtt", "--format", "jsonl")
    assert answer.code == 2
    assert "holds one video" in answer.err
    assert len(records_of(answer.out)) == 2
    assert not (tmp_path / "a.vtt").exists()


def test_copies_with_the_timeline_in_them(vidfuse: Vidfuse, trained, video, tmp_path):
    """All frames are there at their times; what is not a video is named, and the rest is done."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(frames / f"{number}.png")
    command = ("predict", video, frames, "--timeline", "--model", trained.run, *WINDOW)
    answer = vidfuse(*command, "--annotate", "copies", "--format", "jsonl")
    assert answer.code == 1
    assert "no copy was drawn" in answer.err
    assert all(record["ok"] for record in records_of(answer.out))
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["there and back.mp4"]
    with av.open(str(video)) as before, av.open(str(tmp_path / "copies" / video.name)) as after:
        times, copied = (
            [(frame.time, frame.to_ndarray(format="rgb24")) for frame in each.decode(video=0)]
            for each in (before, after)
        )
    assert [time for time, _ in copied] == pytest.approx([time for time, _ in times])
    change = np.abs(copied[5][1].astype(int) - times[5][1])
    assert change[:20].mean() < 8, "the picture stays"
    assert change[-4:].mean() > 20, "the bar is drawn"


def test_wrong_files(vidfuse: Vidfuse, trained, video, tmp_path):
    command = ("predict", video, "--model", trained.run)
    for arguments, said in (
        (("--timeline", "--out", "a.xyz"), "not the suffix of a file of annotations"),
        (("--timeline", "--out-format", "eaf"), "--out-format says how --out is written"),
        (("--out", "a.vtt"), "--out is for timelines"),
        (("--annotate", "a.mp4"), "--annotate is for timelines"),
        (("--timeline", "--annotate", "a.avi"), "--annotate writes MP4"),
        (("--timeline", "--out", "a.vtt", "--out-format", "nonsense"), "unknown format"),
        (("--timeline", "--out", ".", "--out-format", "csv"), "has all videos in one file"),
    ):
        answer = vidfuse(*command, *arguments)
        assert answer.code == 2
        assert said in answer.err
    assert not list(tmp_path.glob("a.*"))
