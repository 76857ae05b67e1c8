"""Results on standard output, everything else on standard error, through real processes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import CLASSES, NETWORK, PATIENCE, TINY, environment

SCRIPTING = Path(__file__).resolve().parents[2] / "docs" / "scripting.md"
FIELDS = ["path", "ok", "label", "score", "top", "warnings", "error"]


def undocumented(report: dict[str, Any]) -> list[str]:
    """Fields that docs/scripting.md does not name."""
    text = SCRIPTING.read_text("utf-8")
    return [name for name in [*report, *report.get("timings", ())] if f"`{name}`" not in text]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"this is no video" * 64)
    return path


def test_train_prints_the_model_and_nothing_else(trained):
    assert trained.answer.out == f"{trained.model}\n"
    assert trained.model.is_file()
    assert "\x1b" not in trained.answer.err
    assert "Split: by group" in trained.answer.err
    assert f"--model {trained.run}" in trained.answer.err
    config = tomllib.loads((trained.run / "config.toml").read_text())
    assert (config["epochs"], config["size"], config["layer"]) == (3, 32, "layer1")
    epochs = [json.loads(line) for line in (trained.run / "metrics.jsonl").open()]
    assert [each["epoch"] for each in epochs if "refit" not in each] == [1, 2, 3]
    refit = [each["epoch"] for each in epochs if "refit" in each]
    assert refit == [1, 2, 3][: len(refit)]
    assert refit


def test_train_reports_json_and_takes_a_run_s_own_configuration(vidfuse, dataset, trained):
    config = trained.run / "config.toml"
    answer = vidfuse("train", dataset, "--config", config, "--out", "again", "--format", "json")
    assert answer.code == 0
    report = json.loads(answer.out)
    assert undocumented(report) == []
    assert report["reused"] == report["clips"]
    assert report["failed"] == 0
    assert report["classes"] == list(CLASSES)
    assert report["epochs"] == 3
    assert set(report["timings"]) >= {"scan", "cache", "decode", "first_step", "other", "total"}
    moments = ("first_step", "total")
    stages = {name: t for name, t in report["timings"].items() if name not in moments}
    assert sum(stages.values()) == pytest.approx(report["timings"]["total"], abs=0.01)
    assert stages["imports"] > 0.1  # torch alone takes longer
    assert Path(report["model"]).name == "model.safetensors"
    # And the same folder twice is refused, before anything is overwritten.
    answer = vidfuse("train", dataset, "--config", config, "--out", trained.run)
    assert (answer.code, answer.out) == (2, "")
    assert "already holds a model" in answer.err


def test_without_a_model_the_command_that_makes_one_is_shown(vidfuse, clips):
    for command in ("predict", "evaluate"):
        answer = vidfuse(command, clips[0])
        assert (answer.code, answer.out) == (2, "")
        assert "Make one with: vidfuse train DATASET" in answer.err


def test_a_missing_model_is_wrong_usage(vidfuse, clips):
    answer = vidfuse("predict", clips[0], "--model", "nothing")
    assert (answer.code, answer.out) == (2, "")
    assert "no such model" in answer.err


def test_runs_latest_is_used_and_named(vidfuse, dataset, clips, tmp_path):
    assert vidfuse("train", dataset, *TINY).code == 0
    answer = vidfuse("predict", clips[0])
    assert answer.code == 0
    name = (tmp_path / "runs" / "latest").read_text().strip()
    assert f"Model: runs/{name}/model.safetensors" in answer.err


def test_predict_text_has_a_line_for_each_clip_in_order(vidfuse, trained, clips):
    answer = vidfuse("predict", *clips, clips[0], "--model", trained.run)
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert answer.code == 0
    assert [row[0] for row in rows] == [str(path) for path in [*clips, clips[0]]]
    assert all(label in CLASSES and 0 <= float(score) <= 1 for _, label, score in rows)


def test_predict_text_keeps_odd_names_on_one_line(vidfuse, trained, clips, tmp_path):
    (odd := tmp_path / "two\nlines\tand a \x1b.mp4").write_bytes(clips[0].read_bytes())
    (line,) = vidfuse("predict", odd, "--model", trained.run).out.splitlines()
    path, label, score = line.split("\t")
    assert path == str(tmp_path / r"two\nlines\tand a \x1b.mp4")
    assert label in CLASSES
    assert 0 < float(score) <= 1


def test_predict_text_has_a_line_for_each_input(vidfuse, trained, clips):
    answer = vidfuse("predict", "missing.mp4", clips[0], "a\x9b\n.mp4", "--model", trained.run)
    assert answer.code == 1
    failed, predicted, odd = (line.split("\t") for line in answer.out.splitlines())
    assert failed == ["missing.mp4", "", "", "no such file or folder"]
    assert (predicted[0], len(predicted)) == (str(clips[0]), 3)
    assert odd == [r"a\x9b\n.mp4", "", "", "no such file or folder"]
    assert r"Warning: a\x9b\n.mp4: no such file or folder" in answer.err.splitlines()


def test_a_time_limit_may_be_as_long_as_one_likes(vidfuse, trained, clips):
    words = ("--time-limit", "1e12", "--no-cache", "--workers", "1", "--model", trained.run)
    assert vidfuse("predict", clips[0], *words).code == 0


def test_predict_csv_holds_no_formula(vidfuse, trained):
    answer = vidfuse("predict", "=1+1.mp4", "--format", "csv", "--model", trained.run)
    (row,) = csv.DictReader(io.StringIO(answer.out))
    assert row["path"] == "'=1+1.mp4"


def test_predict_jsonl_names_what_failed_and_delivers_the_rest(vidfuse, trained, clips, broken):
    inputs = ("missing.mp4", clips[0], broken)
    answer = vidfuse("predict", *inputs, "--format", "jsonl", "--model", trained.run)
    records = [json.loads(line) for line in answer.out.splitlines()]
    assert answer.code == 1
    assert [record["ok"] for record in records] == [False, True, False]
    assert [record["path"] for record in records] == [str(path) for path in inputs]
    for record in records:
        assert list(record) == FIELDS
    assert records[0]["error"] == "no such file or folder"
    assert answer.err.count(str(broken)) == 1  # once, with its reason
    assert records[2]["error"] in answer.err


def test_predict_json_is_one_document(vidfuse, trained, clips):
    answer = vidfuse("predict", clips[0], "--format", "json", "--top", "1", "--model", trained.run)
    document = json.loads(answer.out)
    (record,) = document["records"]
    assert len(record["top"]) == 1
    assert record["top"][0] == {"label": record["label"], "score": record["score"]}
    assert document["timings"]["total"] > 0
    assert list(document) == ["records", "timings"]
    assert undocumented(record) == []


def test_predict_csv_is_read_back(vidfuse, trained, clips, tmp_path):
    odd = tmp_path / 'a "quoted", odd name.mp4'
    odd.write_bytes(clips[0].read_bytes())
    answer = vidfuse("predict", odd, "nothing.mp4", "--format", "csv", "--model", trained.run)
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert answer.code == 1
    assert list(rows[0]) == FIELDS
    assert [row["path"] for row in rows] == [str(odd), "nothing.mp4"]
    assert [row["ok"] for row in rows] == ["True", "False"]


def test_predict_reads_folders_globs_and_lists(vidfuse, trained, dataset, clips):
    lines = [f"{clips[0]}\r\n", "\r\n", f"{clips[1]}\r\n", "missing.mp4\r\n"]
    glob = str(dataset / "right" / "*.mp4")
    arguments = (dataset / "left", glob, "-", "--format", "jsonl", "--model", trained.run)
    answer = vidfuse("predict", *arguments, stdin="".join(lines))
    paths = [json.loads(line)["path"] for line in answer.out.splitlines()]
    assert answer.code == 1
    assert paths == [str(path) for path in [*clips, *clips[:2]]] + ["missing.mp4"]


@pytest.mark.parametrize(
    ("inputs", "stdin"),
    [((".",), ""), (("*.mp4",), ""), (("-",), "\n\n"), (("",), "")],
)
def test_inputs_that_stand_for_no_clip_fail(vidfuse, trained, inputs, stdin):
    answer = vidfuse("predict", *inputs, "--format", "jsonl", "--model", trained.run, stdin=stdin)
    assert answer.code == 1
    (record,) = map(json.loads, answer.out.splitlines())
    assert not record["ok"]
    assert answer.err.count("Warning: ") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux only")
def test_a_file_name_that_is_not_text_is_passed_through(vidfuse, trained, clips, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(name)).write_bytes(clips[0].read_bytes())
    answer = vidfuse("predict", "-", "--model", trained.run, stdin=name + b"\n")
    assert answer.code == 0
    assert os.fsencode(answer.out).startswith(name + b"\t")
    form = ("--format", "jsonl")
    answer = vidfuse("predict", "-", *form, "--model", trained.run, stdin=name + b"\n")
    assert os.fsencode(json.loads(answer.out)["path"]) == name
    answer = vidfuse(
        "predict", "-", "--model", trained.run, stdin=name, env={"PYTHONIOENCODING": "ascii"}
    )
    assert answer.code == 0


def test_quiet_leaves_warnings(vidfuse, trained, clips):
    answer = vidfuse("predict", "-q", clips[0], "none.mp4", "--model", trained.run)
    assert answer.code == 1
    assert answer.err == "Warning: none.mp4: no such file or folder\n"


def test_a_closed_pipe_ends_quietly(feature_cache, trained, clips):
    process = subprocess.Popen(
        [sys.executable, "-m", "vidfuse", "predict", *map(str, clips), "--format", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(feature_cache, {"VIDFUSE_MODEL": str(trained.run)}),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before the first record: nobody reads at all
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=PATIENCE) == 0
    assert "Traceback" not in err
    assert "Error" not in err


def test_jsonl_streams(feature_cache, trained, clips):
    """A record comes out although the list of inputs goes on."""
    with subprocess.Popen(
        [sys.executable, "-m", "vidfuse", "predict", *["-", "--format", "jsonl"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(feature_cache, {"VIDFUSE_MODEL": str(trained.run)}),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{clips[0]}\n".encode() * 100)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["ok"]
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 99


def test_evaluate_as_text_and_json(vidfuse, trained, dataset):
    text = vidfuse("evaluate", dataset, "--model", trained.run)
    assert text.code == 0
    assert text.out.startswith("accuracy ")
    assert "for comparison   0.500, always the most frequent class" in text.out
    assert "clips that the model has not seen" in text.err
    answer = vidfuse("evaluate", dataset, "--model", trained.run, "--format", "json")
    report = json.loads(answer.out)
    assert undocumented(report) == []
    assert report["clips"] == 4
    assert report["in_training"] == 0
    assert np.sum(report["confusion_matrix"]) == 4
    subset = ("--subset", "train", "--format", "json")
    report = json.loads(vidfuse("evaluate", dataset, *subset, "--model", trained.run).out)
    assert report["clips"] == report["in_training"] == 8, "those of validation, too"


def test_the_matrix_tells_long_names_apart():
    from vidfuse.cli.console import shortened

    assert shortened(["push", "applauding"]) == ["push", "applauding"]
    assert shortened(["push", "applauding loudly"]) == ["push", "applaudin…"]
    alike = ["playing guitar", "playing gut strings"]
    assert shortened(alike) == alike


def test_extract_writes_arrays_and_an_index(vidfuse, dataset, tmp_path):
    tiny = (*NETWORK, "--frames", "4", "--grid", "1")
    answer = vidfuse("extract", dataset, *tiny, "--out", "out", "--format", "json")
    assert answer.code == 0
    report = json.loads(answer.out)
    assert undocumented(report) == []
    assert (report["clips"], report["failed"]) == (12, 0)
    rows = list(csv.DictReader((tmp_path / "out" / "index.csv").open()))
    assert len(rows) == 12
    assert {row["label"] for row in rows} == set(CLASSES)
    for row in rows:
        array = np.load(tmp_path / "out" / row["file"])
        assert (array.shape, array.dtype) == ((4, 64), np.float32)
        assert len(row["times"].split()) == int(row["frames"]) == 4


def test_extract_takes_clips_and_counts_failures(vidfuse, clips, broken):
    tiny = (*NETWORK, "--frames", "4", "--format", "json")
    inputs = (clips[0].parent, broken, "-")
    answer = vidfuse("extract", *inputs, *tiny, stdin=f"{clips[-1]}\n")
    report = json.loads(answer.out)
    assert answer.code == 1  # one of eight is more than 5 %
    assert (report["clips"], report["failed"]) == (8, 1)
    assert report["failures"][0]["path"].endswith("broken.mp4")
    assert report["timings"]["imports"] > 0.1  # torch alone takes longer


def test_train_stops_when_too_many_clips_fail(vidfuse, clips, tmp_path):
    for path in clips:
        copy = tmp_path / "data" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() if path != clips[0] else b"damaged")
    answer = vidfuse("train", "data", *TINY, "--seed", "1")
    assert (answer.code, answer.out) == (1, "")
    assert "--max-failed allows 5%" in answer.err
    assert answer.err.count("g01_0.mp4") <= 2  # the warning, and the error that ends the run
    answer = vidfuse("train", "data", *TINY, "--max-failed", "0.2", "--out", "run", "--seed", "1")
    assert answer.code == 0
    failures = [json.loads(line) for line in (tmp_path / "run/failures.jsonl").open()]
    assert [Path(each["path"]).name for each in failures] == [clips[0].name]


def test_inspect_as_text_and_json(vidfuse, dataset):
    text = vidfuse("inspect", dataset, "--no-read")
    assert text.code == 0
    assert text.out.startswith("squares: 12 clips, 2 classes\n")
    answer = vidfuse("inspect", dataset, "--format", "json")
    report = json.loads(answer.out)
    assert answer.code == 0
    assert undocumented(report) == []
    assert report["frames"] == {"least": 10, "median": 10, "most": 10}
    assert (report["groups"], report["unreadable"]) == (3, [])


def test_the_keys_of_backbones_are_documented(vidfuse):
    assert undocumented(json.loads(vidfuse("backbones", "thin", "--format", "json").out)) == []


def test_inspect_names_unreadable_clips(vidfuse, clips, tmp_path):
    for label in CLASSES:
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "good.mp4").write_bytes(clips[0].read_bytes())
    (tmp_path / "data" / "left" / "empty.mp4").touch()
    answer = vidfuse("inspect", "data")
    assert answer.code == 1
    assert "empty.mp4: the file is empty" in answer.out
    assert vidfuse("inspect", "data", "--no-read").code == 0


def test_cache_info_verify_and_prune(vidfuse, clips, tmp_path):
    own = {"VIDFUSE_CACHE": str(tmp_path / "own")}
    assert "0 entries" in vidfuse("cache", "info", env=own).out
    tiny = (*NETWORK, "--frames", "4")
    assert vidfuse("extract", *clips[:2], *tiny, env=own).code == 0
    info = json.loads(vidfuse("cache", "info", "--format", "json", env=own).out)
    assert undocumented(info) == []
    assert info["entries"] == 2
    assert info["specs"][0]["spec"]["backbone"] == "resnet18"
    assert vidfuse("cache", "verify", env=own).out == "2 entries checked, 0 damaged\n"
    entry = next((tmp_path / "own").rglob("*.safetensors"))
    entry.write_bytes(entry.read_bytes()[:-3])
    answer = vidfuse("cache", "verify", "--format", "json", env=own)
    assert answer.code == 1
    assert json.loads(answer.out)["damaged"] == [str(entry)]
    assert str(entry) in answer.err
    everything = ("cache", "prune", "--all")
    assert vidfuse(*everything, "--dry-run", env=own).out.startswith("1 entries")
    assert json.loads(vidfuse(*everything, "--format", "json", env=own).out)["removed"] == 1
    assert "0 entries" in vidfuse("cache", "info", env=own).out
