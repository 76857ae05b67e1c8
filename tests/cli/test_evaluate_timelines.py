"""``vidfuse evaluate --timeline`` and ``--predictions``."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from program import CLASSES, Vidfuse, write_moving_square

from vidfuse.data.timelines import read_timelines

WINDOW = ("--window", 0.8, "--step", 0.2, "--segment-cost", 0)
TABLE = "path,start,end,label,group\n"


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of a square that turns, and their annotations."""
    folder = tmp_path_factory.mktemp("long")
    lines = []
    for seed in range(3):
        write_moving_square(folder / f"v{seed}.mp4", 4, seed=70 + seed, frames=48, turn=24)
        group = "late" if seed else "early"
        lines += [f"v{seed}.mp4,0,2.4,right,{group}\n", f"v{seed}.mp4,2.4,4.8,left,{group}\n"]
    (folder / "truth.csv").write_text(TABLE + "".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def evaluate(vidfuse: Vidfuse):
    def run(*arguments, code=0):
        answer = vidfuse("evaluate", *arguments, "--format", "json")
        assert answer.code == code, answer.err
        return json.loads(answer.out), answer.err

    return run


def test_a_model_is_measured(evaluate, trained, videos, tmp_path):
    command = (videos / "truth.csv", "--timeline", "--model", trained.run, *WINDOW)
    result, _ = evaluate(*command, "--out", "results")
    assert result["labels"] == [*CLASSES, "(nothing)"]
    assert result["interval_method"].startswith("group bootstrap, 2000 resamples, 2 groups")
    assert [each["path"] for each in result["videos"]] == ["v0.mp4", "v1.mp4", "v2.mp4"]
    assert [each["group"] for each in result["videos"]] == ["early", "late", "late"]
    assert [each["seconds"] for each in result["videos"]] == pytest.approx([4.8] * 3)
    table = result["confusion_matrix"]
    assert sum(map(sum, table)) == 360  # moments
    right = sum(table[i][i] for i in range(3)) / 360
    assert result["frame_accuracy"]["value"] == pytest.approx(right)
    assert result["frame_accuracy"]["most_frequent"] == pytest.approx(0.5)
    assert result["mean_ap"].keys() == {"0.3", "0.4", "0.5", "0.6", "0.7", "mean"}
    assert result["mean_ap"]["0.5"]["value"] is not None
    assert (result["in_training"], result["failed"], result["warnings"]) == (0, 0, [])
    # What it wrote gives the same numbers without the model, and says the same of each video.
    again, _ = evaluate(videos / "truth.csv", "--predictions", "results/predictions.jsonl")
    own = {"model", "predictions", "in_training", "timings"}
    assert {k: v for k, v in again.items() if k not in own} == {
        k: v for k, v in result.items() if k not in own
    }
    assert (again["model"], again["in_training"]) == (None, None)
    with (tmp_path / "results/videos.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["frame_accuracy"]) for row in rows] == pytest.approx(
        [each["frame_accuracy"] for each in result["videos"]]
    )
    with (tmp_path / "results/confusion.csv").open(encoding="utf-8") as file:
        assert [[int(n) for n in row[1:]] for row in list(csv.reader(file))[1:]] == table


def test_the_text_has_intervals_and_baselines(vidfuse, trained, videos):
    command = ("evaluate", videos / "truth.csv", "--timeline", "--model", trained.run, *WINDOW)
    lines = vidfuse(*command).out.splitlines()
    assert lines[0].split() == ["value", "95", "%", "interval", "most", "frequent", "chance"]
    assert [line[:16].rstrip() for line in lines[1:5]] == [
        "frame accuracy", "  where annotated"[:16], "frame F1, macro", "segmental F1@10",
    ]  # fmt: skip
    assert any(line.startswith("videos      3 (0.2 min, 6 annotated segments)") for line in lines)
    assert sum(line.startswith(CLASSES) for line in lines) == 6  # twice, and in the confusion


def test_videos_are_found(evaluate, trained, videos, tmp_path):
    """Beside the annotations without a suffix, by name among VIDEOS, and one of them not at all."""
    shutil.copytree(videos, tmp_path / "moved")
    (tmp_path / "moved/v2.mp4").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moved/v1.mp4").rename(tmp_path / "elsewhere/v1.mp4")
    shutil.copy(videos / "v2.mp4", tmp_path / "elsewhere/another.mp4")
    (tmp_path / "moved/t.csv").write_text(
        "path,start,end,label\nv0,0,2,right\nC:\\data\\v1.avi,0,2,right\nv2.mp4,0,1,left\n",
        encoding="utf-8",
    )
    command = ("moved/t.csv", "elsewhere", "--timeline", "--model", trained.run, *WINDOW)
    result, err = evaluate(*command, code=1)
    assert [each["path"] for each in result["videos"]] == ["C:\\data\\v1.avi", "v0"]
    assert result["failures"] == [
        {"path": "v2.mp4", "error": "there is no such video, nor one of that name"}
    ]
    assert "v2.mp4: there is no such video" in err
    assert "1 videos are not annotated: elsewhere/another.mp4" in err


def test_what_lies_beyond_the_end_does_not_count(evaluate, trained, videos):
    rows = "v0.mp4,0,2.4,right\nv0.mp4,2.4,99,left\nv0.mp4,100,200,left\n"
    (videos / "beyond.csv").write_text(f"path,start,end,label\n{rows}", encoding="utf-8")
    command = ("--timeline", "--model", trained.run, *WINDOW)
    result, err = evaluate(videos / "beyond.csv", *command)
    assert "annotated up to 200.0 s, but it ends at 4.8 s" in err
    (video,) = result["videos"]
    assert video["seconds"] == pytest.approx(4.8)
    assert video["true_events"] == 2
    left = next(each for each in result["per_class"] if each["label"] == "left")
    assert left["seconds"]["true"] == pytest.approx(2.4)


def test_a_video_is_one_however_it_is_named(vidfuse, evaluate, trained, videos, tmp_path):
    truth = videos / "named.csv"
    truth.write_text("path,start,end,label\nv0.mp4,0,2,right\n", encoding="utf-8")
    command = (truth, "--timeline", "--model", trained.run, *WINDOW)
    result, err = evaluate(truth, os.path.relpath(videos / "v0.mp4", tmp_path), *command[1:])
    assert len(result["videos"]) == 1
    assert "not annotated" not in err
    truth.write_text(
        f"path,start,end,label\nv0.mp4,0,2,right\n{videos / 'v0.mp4'},2,3,left\n", encoding="utf-8"
    )
    answer = vidfuse("evaluate", *command)
    assert answer.code == 2
    assert f"is annotated twice: as v0.mp4 and as {videos / 'v0.mp4'}" in answer.err


def test_a_folder_of_annotations_and_a_class_that_is_background(evaluate, trained, videos):
    folder = videos / "labels"
    folder.mkdir(exist_ok=True)
    for seed in range(2):
        (folder / f"v{seed}.srt").write_text(
            "1\n00:00:00,000 --> 00:00:02,400\nright\n\n2\n00:00:02,400 --> 00:00:04,800\nleft\n"
        )
    command = (folder, videos, "--timeline", "--model", trained.run, *WINDOW)
    result, _ = evaluate(*command, "--background", "left")
    assert result["labels"] == ["right", "(nothing)"]
    assert [each["true_events"] for each in result["videos"]] == [1, 1]
    assert result["frame_accuracy"]["most_frequent"] == pytest.approx(0.5)


def test_videos_of_the_training_are_named(evaluate, trained, dataset, tmp_path):
    clip = next(dataset.glob("left/*.mp4"))
    (tmp_path / "t.csv").write_text(f"path,start,end,label\n{clip},0,1,left\n", encoding="utf-8")
    command = ("t.csv", "--timeline", "--model", trained.run, *WINDOW)
    result, err = evaluate(*command, "--subset", "all")
    assert result["in_training"] == 1
    assert "1 of these videos were used in training or validation" in err
    assert result["interval_method"] == "none: a single video says nothing about other videos"


def test_without_unseen_videos_there_is_nothing_to_measure(vidfuse, trained, dataset, tmp_path):
    clip = next(dataset.glob("left/*.mp4"))
    (tmp_path / "t.csv").write_text(f"path,start,end,label\n{clip},0,1,left\n", encoding="utf-8")
    answer = vidfuse("evaluate", "t.csv", "--timeline", "--model", trained.run, *WINDOW)
    assert answer.code == 2
    assert "of those annotated the model knows 1 in train" in answer.err


def test_two_annotators_are_compared(evaluate, videos, tmp_path):
    (tmp_path / "other.csv").write_text(
        "path,start,end,label\nv0.mp4,0,2.4,right\nv0.mp4,3,4.8,left\nv1.mp4,0,1,jump\n"
        "v9.mp4,0,1,left\n",
        encoding="utf-8",
    )
    result, err = evaluate(videos / "truth.csv", "--predictions", "other.csv")
    assert result["labels"] == ["jump", "left", "right", "(nothing)"]
    assert result["mean_ap"]["0.5"]["value"] is None
    first = result["videos"][0]
    assert first["frame_accuracy"] == pytest.approx(4.2 / 4.8)
    assert first["segment_f1"] == {"10": 1, "25": 1, "50": 1}
    assert result["videos"][2]["predicted_events"] == 0
    assert "1 videos are not among the predictions" in err
    assert "1 videos with predictions are not annotated: v9.mp4" in err
    text = (videos / "truth.csv").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines(keepends=True) if "v2" not in line]
    (tmp_path / "fewer.csv").write_text("".join(kept), encoding="utf-8")
    same, _ = evaluate("fewer.csv", "--predictions", "fewer.csv")
    assert same["frame_accuracy"]["value"] == same["edit_score"]["value"] == 1


def test_a_video_that_jsonl_lacks_is_not_measured(evaluate, videos, tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"path": "v0.mp4", "duration": 4.8, "segments": []}\n', encoding="utf-8"
    )
    result, _ = evaluate(videos / "truth.csv", "--predictions", "p.jsonl", code=1)
    assert [each["path"] for each in result["videos"]] == ["v0.mp4"]
    assert result["failed"] == 2


def test_classes_that_are_never_predicted_are_missed(evaluate, trained, videos, tmp_path):
    (tmp_path / "t.csv").write_text(
        f"path,start,end,label\n{videos / 'v0.mp4'},0,2,fly\n{videos / 'v0.mp4'},2,9.8,left\n"
        f"{videos / 'v0.mp4'},3,3,left\n",
        encoding="utf-8",
    )
    command = ("t.csv", "--timeline", "--model", trained.run, *WINDOW)
    result, err = evaluate(*command)
    assert result["labels"] == [*CLASSES, "fly", "(nothing)"]
    assert "1 annotated segments are of classes that are never predicted" in err
    assert "annotated up to 9.8 s, but it ends at 4.8 s" in err
    assert "1 annotated segments have no length" in err
    less, _ = evaluate(*command, "--background", "fly")
    assert less["labels"] == [*CLASSES, "(nothing)"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("t.csv", "--window", 2), "--window is for timelines"),
        (("t.csv", "--rate", 2), "--rate is for timelines"),
        (("t.csv", "--out", "o"), "--out is for timelines"),
        (("t.csv", "v0.mp4"), "VIDEOS are for timelines"),
        (("t.csv", "--predictions", "t.csv", "--subset", "all"), "predictions are of no subset"),
        (("none.csv", "--timeline"), "no such file"),
        (("t.csv", "--predictions", "t.csv", "--window", 2), "window: predictions are measured"),
        (("t.csv", "--predictions", "t.csv", "--model", "m"), "and a model"),
        (("t.csv", "--predictions", "t.csv", "--rate", "inf"), "too many moments"),
        (("t.csv", "--predictions", "t.csv", "--background", "fly"), "class of --background 'fly'"),
        (("t.csv", "--predictions", "t.csv", "--background", "left"), "no annotated segment"),
        (("empty.csv", "--predictions", "t.csv"), "there are no timelines in it"),
        (("twice.jsonl", "--predictions", "t.csv"), "there are 2 timelines of a.mp4"),
        (("t.csv", "--predictions", "."), "there are 3 timelines of a.mp4"),
    ],
)
def test_wrong_arguments(vidfuse: Vidfuse, trained, tmp_path, arguments, said):
    (tmp_path / "t.csv").write_text("path,start,end,label\na.mp4,0,1,left\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("path,start,end,label\n", encoding="utf-8")
    (tmp_path / "twice.jsonl").write_text('{"path": "a.mp4", "segments": []}\n' * 2)
    model = () if "--predictions" in arguments else ("--model", trained.run)
    answer = vidfuse("evaluate", *arguments, *model)
    assert answer.code == 2
    assert said in answer.err
    assert not answer.out


def test_groups_are_kept_in_files(videos, tmp_path):
    found = read_timelines(videos / "truth.csv")
    assert [each.group for each in found.timelines] == ["early", "late", "late"]
    (tmp_path / "t.csv").write_text(
        TABLE + "a,0,1,x,one\na,1,2,x,\na,2,3,x,two\n", encoding="utf-8"
    )
    found = read_timelines(tmp_path / "t.csv")
    assert [each.group for each in found.timelines] == ["one"]
    assert len(found.timelines[0].segments) == 3
    said = "t.csv, line 4: group 'two', though the video is of 'one', which counts"
    assert found.problems == [said]
