"""``vidfuse cut``: segments become clips, and clips are found again."""

from __future__ import annotations

import csv
import json

from program import Vidfuse, write_moving_square


def test_there_and_back(vidfuse: Vidfuse, tmp_path):
    video = write_moving_square(tmp_path / "videos" / "long one.mp4", 3, seed=5, frames=60)
    labels = tmp_path / "labels.jsonl"
    segments = [
        {"start": 1.0, "end": 2.5, "label": "left", "score": 0.9},
        {"start": 3.0, "end": 4.4, "label": "right", "score": 0.8},
    ]
    records = [
        {"path": str(video), "ok": True, "duration": 6.0, "segments": segments},
        {"path": "gone.mp4", "ok": True, "segments": segments[:1]},
    ]
    labels.write_text("\n".join(map(json.dumps, records)))
    out = tmp_path / "clips"
    answer = vidfuse("cut", labels, "--out", out, "--workers", 1)
    assert answer.code == 1
    lines = [line.split("\t") for line in answer.out.splitlines()]
    assert lines[0][:5] == ["gone.mp4", "gone.mp4", "", "", "failed"]
    assert "there is no such video" in lines[0][5]
    left = out / "left" / "long one_1.000-2.500.mp4"
    assert lines[1] == [str(left), str(video), "1.000", "2.500", "cut"]
    assert left.is_file()
    assert "Clips: 2 cut, 1 failed; 2.9 s of video" in answer.err
    assert f"vidfuse train {out}" in answer.err

    again = vidfuse("cut", labels, "--out", out, "--workers", 1, "--format", "json", "--quiet")
    result = json.loads(again.out)
    assert (result["cut"], result["kept"], result["failed"]) == (0, 2, 1)

    manifest = tmp_path / "manifest.csv"
    words = ("--trace", out, tmp_path / "videos", "--out", manifest, "--workers", 1)
    found = vidfuse("cut", *words, "--format", "jsonl")
    assert found.code == 0, found.err
    traced = [json.loads(line) for line in found.out.splitlines()]
    assert [(each["found"], each["source"]) for each in traced] == [("proven", str(video))] * 2
    with manifest.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["videos/long one.mp4"] * 2
    assert [float(row["start"]) for row in rows] == [1, 3]


def test_nothing_to_cut_is_an_error(vidfuse: Vidfuse, tmp_path):
    """As where a table writes decimal commas."""
    write_moving_square(tmp_path / "a.mp4", 3, seed=6)
    for rows, said in (
        ("a.mp4;0,5;1,5;left\n", "start is not a number: '0,5'"),
        ("", "no segment"),
    ):
        (tmp_path / "t.csv").write_text(f"path;start;end;label\n{rows}")
        answer = vidfuse("cut", "t.csv", "--out", "out")
        assert answer.code == 2
        assert "t.csv: no segment in it to cut" in answer.err
        assert said in answer.err


def test_mistakes(vidfuse: Vidfuse, tmp_path):
    answer = vidfuse("cut", "video.mp4", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "no file of annotations among the arguments" in answer.err
    assert ".eaf" in answer.err
