"""``vidfuse train --timeline``: models of long videos with annotations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from program import NETWORK, Vidfuse, run_vidfuse, write_moving_square

from vidfuse.model import open_model

SETTINGS = (*NETWORK, "--epochs", 2, "--workers", 1, "--head", "gru")
WINDOWED = ("--timeline", "windowed", "--window", 0.8, "--frames", 4)
DENSE = ("--timeline", "dense", "--window", 2, "--rate", 5)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos in which a square goes right and then left; the middle is not annotated."""
    root = tmp_path_factory.mktemp("videos")
    rows = [("path", "start", "end", "label")]
    for number in range(6):
        name = f"v{number}.mp4"
        write_moving_square(root / name, 4, seed=50 + number, frames=40, turn=20)
        rows += [(name, "0", "1.6", "right"), (name, "2.4", "4", "left")]
    with (root / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="session", params=[WINDOWED, DENSE], ids=["windowed", "dense"])
def run(request, videos, feature_cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    command = ("train", videos / "videos.csv", *SETTINGS, *request.param, "--out", folder / "run")
    answer = run_vidfuse(feature_cache, *command, cwd=folder)
    assert answer.code == 0, answer.err
    assert "6 videos, 0.4 min, 3 classes; " in answer.err
    return folder / "run"


def test_it_says_what_happens_when(vidfuse: Vidfuse, videos, run):
    """Whatever was learned in two epochs: of each moment, and without one of background."""
    command = ("predict", videos / "v0.mp4", "--timeline", "--model", run, "--format", "jsonl")
    answer = vidfuse(*command)
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    assert {each["label"] for each in record["segments"]} <= {"left", "right"}
    assert record["duration"] == pytest.approx(4)
    everything = json.loads(vidfuse(*command, "--background", "").out)["segments"]
    assert everything[0]["start"] == 0
    assert everything[-1]["end"] == record["duration"]
    assert {each["label"] for each in everything} <= {"background", "left", "right"}
    some = json.loads(vidfuse(*command, "--background", "left").out)["segments"]
    assert {each["label"] for each in some} <= {"right"}


def test_the_rate_of_a_dense_model_is_that_of_its_training(vidfuse: Vidfuse, videos, run):
    """Its features are there for any window; a windowed one has as many samples in each."""
    command = ("predict", videos / "v0.mp4", "--timeline", "--model", run, "--format", "json")
    before = json.loads(vidfuse(*command).out)
    after = json.loads(vidfuse(*command, "--window", 1).out)
    dense = "dense" in (run / "config.toml").read_text()
    assert ("forward" in after["timings"]) != dense
    assert before["records"][0]["duration"] == after["records"][0]["duration"]


def test_classes_of_moments_are_divided_and_not_those_of_sequences(vidfuse: Vidfuse, tmp_path):
    """Each video has all classes, and one of them fills most of each of its sequences."""
    rows = ["path,start,end,label"]
    for number, (often, seldom) in enumerate((("left", "right"), ("right", "left")) * 2):
        name = f"v{number}.mp4"
        write_moving_square(tmp_path / name, 4, seed=80 + number, frames=40, turn=30)
        rows += [f"{name},0,3,{often}", f"{name},3,4,{seldom}"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    answer = vidfuse("train", "t.csv", *SETTINGS, *DENSE, "--window", 4, "--out", "run")
    assert answer.code == 0, answer.err
    assert "not in validation" not in answer.err


def test_nothing_is_decoded_again(vidfuse: Vidfuse, videos, run, tmp_path):
    words = (run / "config.toml").read_text()
    kind = DENSE if 'timeline = "dense"' in words else WINDOWED
    command = ("train", videos / "videos.csv", *SETTINGS, *kind, "--out", tmp_path / "again")
    answer = vidfuse(*command, "--format", "json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert (result["computed"], result["reused"]) == (0, 5)  # the videos to train and choose on
    first, again = (path / "model.safetensors" for path in (run, tmp_path / "again"))
    assert first.stat().st_size == pytest.approx(again.stat().st_size, abs=200)


def test_a_dense_model_answers_no_clips(vidfuse: Vidfuse, videos, run):
    answer = vidfuse("predict", videos / "v0.mp4", "--model", run)
    if 'timeline = "dense"' in (run / "config.toml").read_text():
        assert answer.code == 2
        assert "Add --timeline" in answer.err
    else:
        assert answer.code == 0
        assert answer.out.split("\t")[1] in ("background", "left", "right")


def test_it_is_measured_on_videos_that_it_has_not_seen(vidfuse: Vidfuse, videos, run):
    command = ("evaluate", videos / "videos.csv", "--timeline", "--model", run)
    answer = vidfuse(*command, "--format", "json")
    assert answer.code == 0, answer.err
    assert "5 videos that the model was trained or chosen on are left out" in answer.err
    unseen = json.loads(answer.out)
    assert (len(unseen["videos"]), unseen["in_training"]) == (1, 0)
    everything = json.loads(vidfuse(*command, "--subset", "all", "--format", "json").out)
    assert (len(everything["videos"]), everything["in_training"]) == (6, 5)
    seen = json.loads(vidfuse(*command, "--subset", "train", "--format", "json").out)
    paths = {each["path"] for each in seen["videos"]}
    assert len(paths) == 5
    assert unseen["videos"][0]["path"] not in paths


def test_windows_of_all_classes_come_equally_often(run):
    metadata = open_model(run / "model.safetensors").metadata
    windowed = metadata["timeline"] == "windowed"
    assert metadata["config"].get("class_weights") == ("sampler" if windowed else None)


def test_a_model_keeps_how_long_segments_were(run):
    assert open_model(run / "model.safetensors").metadata["segment_seconds"] == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*DENSE, "--head", "mean"), "head 'mean' classifies clips"),
        ((*DENSE, "--views", 2), "--views is for clips"),
        ((*DENSE, "--frame-dropout", 0.2), "--frame-dropout is for clips"),
        ((*WINDOWED, "--sampling", "dense"), "--sampling is for clips"),
        ((*WINDOWED, "--head", "policy"), "head 'policy' selects its frames"),
        ((*WINDOWED, "--backbone", "r3d_18"), "r3d_18 sees windows of frames"),
        ((*DENSE, "--folds", 2), "Leave out --folds"),
        ((*DENSE, "--rate", 0), "rate"),
        ((*DENSE, "--rate", 0.1), "0 samples in a window of 2 s"),
        ((*WINDOWED, "--window", 1e-4), "4 samples in a window of 0.0001 s"),
        ((*WINDOWED, "--rate", 4), "rate: it is for --timeline dense"),
        (("--window", 2), "window: it is for --timeline"),
    ],
)
def test_wrong_settings(vidfuse: Vidfuse, videos, arguments, said):
    answer = vidfuse("train", videos / "videos.csv", *SETTINGS, *arguments, "--out", "run")
    assert answer.code == 2
    assert said in answer.err


def test_videos_that_cannot_be_read(vidfuse: Vidfuse, videos, tmp_path):
    rows = (videos / "videos.csv").read_text().splitlines()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    lines = [f"{videos}/{row}" for row in rows[1:]] + [f"{broken},0,1,left"]
    (tmp_path / "all.csv").write_text("\n".join([rows[0], *lines]))
    command = ("train", tmp_path / "all.csv", *SETTINGS, *WINDOWED, "--out", "run")
    answer = vidfuse(*command)
    assert answer.code == 1
    assert "1 of 7 clips could not be read" in answer.err
    answer = vidfuse(*command, "--max-failed", 0.5)
    assert answer.code == 0, answer.err
    assert "broken.mp4" in answer.err


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,begin,stop,label\nv0.mp4,0,1,left\n", "no row says when"),
        ("path,label\nv0.mp4,left\nv1.mp4,right\n", "leave out --timeline"),
        ("path,start,end,label\nv0.mp4,0,1,left\nv1.mp4,1,2,right\n", "2 videos are too few"),
        ("path,start,end,label,split\nv0.mp4,0,1,left,nowhere\n", "nowhere"),
    ],
)
def test_a_manifest_that_cannot_be_learned_from(vidfuse: Vidfuse, videos, table, said, tmp_path):
    (tmp_path / "t.csv").write_text(table.replace("\nv", f"\n{videos}/v"))
    answer = vidfuse("train", "t.csv", *SETTINGS, *WINDOWED, "--out", "run")
    assert answer.code == 2
    assert said in answer.err


def test_a_dataset_that_is_not_there(vidfuse: Vidfuse):
    answer = vidfuse("train", "nowhere", *SETTINGS, *WINDOWED, "--out", "run")
    assert answer.code == 2
    assert "nowhere: no such file or folder" in answer.err


def test_a_window_that_no_class_fills(vidfuse: Vidfuse, videos):
    """Each video is two halves of one and the same length, and a gap."""
    command = ("train", videos / "videos.csv", *SETTINGS, *WINDOWED, "--window", 4, "--frames", 8)
    answer = vidfuse(*command, "--out", "run")
    assert answer.code == 2
    assert "no class fills more than half" in answer.err
    assert "Choose a shorter --window" in answer.err


def test_rows_that_mean_little_are_named(vidfuse: Vidfuse, videos, tmp_path):
    rows = (videos / "videos.csv").read_text().splitlines()
    lines = [rows[0], *(f"{videos}/{row}" for row in rows[1:])]
    lines += [f"{videos}/v0.mp4,200,220,left", f"{videos}/v1.mp4,1,2,"]
    (tmp_path / "more.csv").write_text("\n".join(lines))
    answer = vidfuse("train", "more.csv", *SETTINGS, *WINDOWED, "--out", "run")
    assert answer.code == 0, answer.err
    assert "v0.mp4: annotated up to 220.0 s, but it ends at 4.0 s" in answer.err
    assert "1 rows have no label" in answer.err
