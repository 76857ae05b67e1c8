"""``vidfuse predict --timeline``: what happens when in videos longer than a clip."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from program import CLASSES, Vidfuse, interrupt, run_vidfuse, write_moving_square

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


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_and_computes_no_stretch_twice(trained, tmp_path):
    video = write_moving_square(tmp_path / "long.mp4", 4, seed=71, frames=4000, turn=1500)
    command = ("predict", video, "--timeline", "--model", trained.run, "--format", "json")

    def entries(cache: Path) -> dict[str, tuple[int, int]]:
        """The stretches that are kept; one that is written anew is another file."""
        files = [(each, each.stat()) for each in cache.rglob("*.safetensors")]
        return {each.name: (stat.st_ino, stat.st_mtime_ns) for each, stat in files}

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    answer = interrupt(
        killed,
        *command,
        cwd=tmp_path,
        ready=lambda: len(entries(killed)) >= 5,
        by=signal.SIGKILL,
    )
    kept = entries(killed)
    assert answer.code == -signal.SIGKILL
    again = run_vidfuse(killed, *command, cwd=tmp_path)
    uninterrupted = run_vidfuse(whole, *command, cwd=tmp_path)
    assert json.loads(again.out)["records"] == json.loads(uninterrupted.out)["records"]
    assert 5 <= len(kept) < len(entries(killed)) == len(entries(whole)) == 20
    assert kept.items() <= entries(killed).items()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--window", 2), "--window is for timelines"),
        (("--min-duration", 2), "--min-duration is for timelines"),
        (("--timeline", "--background", "nothing"), "the model knows no class 'nothing'"),
        (("--timeline", "--threshold", 0.3, "--low-threshold", 0.4), "is above --threshold"),
        (("--timeline", "--low-threshold", 0.4), "--low-threshold needs --threshold"),
        (("--timeline", "--top", 3), "--top does not go with --timeline"),
        (("--timeline", "--overwrite"), "--overwrite is for --out and --annotate"),
        (("--overwrite",), "--overwrite is for timelines"),
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "a.vtt"), "holds one video, and there are 3"),
        (("--annotate", "a.mp4"), "is one file"),
    ],
)
def test_one_file_for_several_videos(vidfuse: Vidfuse, trained, video, tmp_path, arguments, said):
    """Of a list that is told before the work, and of what comes over time as soon as it is known.

    Paths on standard input are such: two are answered.
    """
    command = ("predict", "--timeline", "--model", trained.run, *WINDOW, *arguments)
    answer = vidfuse(*command, video, video, video)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    answer = vidfuse(*command, "-", "--format", "jsonl", stdin=f"{video}\n" * 3)
    assert answer.code == 2
    assert said.split(",")[0] in answer.err
    assert len(records_of(answer.out)) == 2
    assert not (tmp_path / "a.vtt").exists()


def test_what_is_there_is_not_replaced(vidfuse: Vidfuse, trained, video, tmp_path):
    """Unless that is wanted, as by who repeats a run that was interrupted."""
    command = ("predict", video, "--timeline", "--model", trained.run, *WINDOW)
    names = ("all.csv", "tables/there and back.csv", "a.mp4", "copies/there and back.mp4")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    files = ("--out", "all.csv", "--annotate", "a.mp4")
    folders = ("--out", "tables", "--out-format", "csv", "--annotate", "copies")
    for each in (files[:2], files[2:], folders[:4], folders[4:]):
        answer = vidfuse(*command, *each)
        assert (answer.code, answer.out) == (2, "")
        assert "there already" in answer.err
        assert "--overwrite" in answer.err
    # Of what comes over time, each file is looked for when it is due.
    answer = vidfuse("predict", "-", *command[2:], *folders, stdin=f"{video}\n")
    assert answer.code == 1
    assert answer.err.count("there already") == 2
    assert answer.out
    assert all((tmp_path / name).read_text() == "mine" for name in names)
    for options in (files, folders):
        answer = vidfuse(*command, *options, "--overwrite")
        assert answer.code == 0, answer.err
    assert all((tmp_path / name).read_bytes() != b"mine" for name in names)


def test_an_input_is_never_replaced(vidfuse: Vidfuse, trained, video, tmp_path):
    """Whatever it is called: the copy of one may have the name of another, or be a link to it."""
    for name in ("own/a.mp4", "own/a~2.mp4", "other/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(video, tmp_path / name)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "own" / "a.mp4")
    command = ("predict", "--timeline", "--model", trained.run, *WINDOW, "--overwrite")
    content = video.read_bytes()
    for arguments in (
        ("own", "--annotate", "own"),
        ("other/a.mp4", "own/a~2.mp4", "--annotate", "own/../own/"),
        ("own/a.mp4", "--annotate", "link.mp4"),
        ("own/a.mp4", "--out", "own/a.mp4", "--out-format", "csv"),
    ):
        answer = vidfuse(*command, *arguments)
        assert (answer.code, answer.out) == (2, "")
        assert "an input, which is never replaced" in answer.err
    answer = vidfuse(*command, "-", "--annotate", "own", stdin="own/a.mp4\nown/a~2.mp4\n")
    assert answer.code == 1
    assert answer.err.count("an input, which is never replaced") == 2
    assert len(list((tmp_path / "own").iterdir())) == 2
    assert all(path.read_bytes() == content for path in tmp_path.glob("*/*.mp4"))


def test_a_copy_is_not_drawn_again(vidfuse: Vidfuse, trained, video, tmp_path):
    """Where it is itself an input that comes later, as in a folder that is watched."""
    command = ("predict", "-", "--timeline", "--model", trained.run, *WINDOW)
    stdin = f"{video}\ncopies/{video.name}\n"
    answer = vidfuse(*command, "--annotate", "copies", stdin=stdin)
    assert answer.code == 1
    assert "this run has made it" in answer.err
    assert len(list((tmp_path / "copies").iterdir())) == 1


def test_names_that_no_file_can_hold(vidfuse: Vidfuse, trained, video, tmp_path):
    """They cost their own timeline in the file, and no other."""
    odd = tmp_path / "new\nline.mp4"
    shutil.copy(video, odd)
    command = ("predict", odd, video, "--timeline", "--model", trained.run, *WINDOW)
    for arguments in (("--out", "all.csv"), ("--out", "each", "--out-format", "srt")):
        answer = vidfuse(*command, *arguments, "--format", "jsonl")
        assert answer.code == 1
        assert "control characters" in answer.err
        assert all(record["ok"] for record in records_of(answer.out))
    (timeline,) = read_timelines(tmp_path / "all.csv").timelines
    assert timeline.path == video
    assert [path.name for path in (tmp_path / "each").iterdir()] == ["there and back.srt"]


def test_folders_have_a_file_of_each_video(vidfuse: Vidfuse, trained, video, tmp_path):
    """In every format; videos of one name have numbers, and it is said which is which."""
    (tmp_path / "again").mkdir()
    second = shutil.copy(video, tmp_path / "again" / video.name)
    command = ("predict", video, second, "--timeline", "--model", trained.run, *WINDOW)
    (tmp_path / "a.folder").mkdir()
    for folder, name in (("new", "csv"), ("new.d/", "srt"), ("a.folder", "jsonl")):
        answer = vidfuse(*command, "--out", folder, "--out-format", name)
        assert answer.code == 0, answer.err
        names = [f"there and back.{name}", f"there and back~2.{name}"]
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
        assert f"{names[1]} (of {second})" in answer.err
    answer = vidfuse(*command, "--annotate", "copies.d/")
    assert sorted(path.name for path in (tmp_path / "copies.d").iterdir()) == [
        "there and back.mp4",
        "there and back~2.mp4",
    ]
    assert f"there and back~2.mp4 (of {second})" in answer.err


def test_copies_with_the_timeline_in_them(vidfuse: Vidfuse, trained, video, tmp_path):
    """All frames are there at their times; what is not a video is named, and the rest is done."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(frames / f"{number}.png")
    command = ("predict", video, frames, "--timeline", "--model", trained.run, *WINDOW)
    answer = vidfuse(*command, "--annotate", "copies", "--format", "jsonl")
    assert answer.code == 1
    assert "folders of frames are not drawn" in answer.err
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
        (("--timeline", "--out", "a"), "Name the format: --out-format jsonl, csv"),
        (("--timeline", "--out", "a.d/"), "Name the format: --out-format jsonl, csv"),
        (("--timeline", "--out", "a.foo"), "Name the format: --out-format. Known formats: jsonl ("),
    ):
        answer = vidfuse(*command, *arguments)
        assert answer.code == 2
        assert said in answer.err
    assert not list(tmp_path.glob("a.*"))
