"""Folds, resuming and ensembles as commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from program import NETWORK, TINY, interrupt

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def test_folds_as_text(vidfuse, dataset, tmp_path):
    answer = vidfuse("train", dataset, *TINY, "--folds", "3", "--out", "run")
    assert answer.code == 0, answer.err
    assert answer.out == "run/model.safetensors\n"
    assert (tmp_path / "run/model.safetensors").exists()
    lines = answer.err.splitlines()
    assert "Split: 3 folds by group, seed 0 (3 groups); validation: 15 % of the rest" in lines
    start = next(i for i, line in enumerate(lines) if line.startswith("head "))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == [
        *("lstm", "majority", "geometry")
    ]
    assert lines[start + 4] == "The model is fitted on all 12 clips."

    unseen = vidfuse("evaluate", dataset, "--model", "run")
    assert (unseen.code, unseen.out) == (2, "")
    assert "no clip to measure on (clips that the model has not seen)" in unseen.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--folds", "9"), "3 groups cannot make 9 folds\nUse --folds 3."),
        (("--folds", "1"), "must be at least 2"),
    ],
)
def test_folds_that_cannot_be_made(vidfuse, dataset, words, message):
    answer = vidfuse("train", dataset, *TINY, *words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def logged(run: Path, lines: int) -> bool:
    metrics = run / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count("\n") > lines


@posix_only
def test_ctrl_c_in_folds(feature_cache, dataset, tmp_path):
    endless = (*TINY, "--epochs", "1000000", "--patience", "0", "--folds", "3", "--out", "run")
    answer = interrupt(
        feature_cache,
        *("train", dataset, *endless),
        cwd=tmp_path,
        ready=lambda: logged(tmp_path / "run", 2),
    )
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.endswith("Interrupted.\n")
    assert "Traceback" not in answer.err
    assert not (tmp_path / "run" / "model.safetensors").exists()


@posix_only
def test_ctrl_c_then_resume(vidfuse, feature_cache, dataset, tmp_path):
    endless = (*TINY, "--epochs", "300", "--patience", "0", "--out", "run")
    answer = interrupt(
        feature_cache,
        *("train", dataset, *endless),
        cwd=tmp_path,
        ready=lambda: logged(tmp_path / "run", 2),
    )
    assert answer.code == 130, answer.err
    assert "go on with: vidfuse train --resume run" in answer.err
    other = vidfuse("train", "--resume", "run", "--lr", "0.5", "--head", "mean")
    assert (other.code, other.out) == (2, "")
    assert "not with others for head, lr" in other.err or "for lr, head" in other.err
    resumed = vidfuse("train", "--resume", "run", "--workers", "1", "--cache", feature_cache)
    assert resumed.code == 0, resumed.err
    assert resumed.out == "run/model.safetensors\n"
    assert "Resuming after epoch" in resumed.err
    assert "of 300" in resumed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing argument 'DATASET'"),
        (("--resume", "nothing"), "nothing: not a run folder that can be resumed"),
        (("somewhere", "--resume", "nothing"), "on its own dataset"),
        (("--folds", "2", "--resume", "nothing"), "without folds"),
    ],
)
def test_train_without_a_dataset(vidfuse, words, message):
    answer = vidfuse("train", *words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_an_ensemble(vidfuse, trained, dataset, clips):
    words = ("train", dataset, *NETWORK, "--frames", "3", "--head", "mean", "--epochs", "2")
    second = vidfuse(*words, "--workers", "1", "--out", "second")
    assert second.code == 0, second.err
    models = ("--model", trained.run, "--model", "second")
    answer = vidfuse("predict", clips[0], *models, "--format", "jsonl")
    assert answer.code == 0, answer.err
    assert sum(each["score"] for each in json.loads(answer.out)["top"]) == pytest.approx(1)
    measured = vidfuse("evaluate", dataset, *models, "--format", "json")
    assert measured.code == 0, measured.err
    report = json.loads(measured.out)
    assert report["model"] == f"{trained.model}, second/model.safetensors"
    assert report["in_training"] == 0
    assert measured.err.count("Model: ") == 2


def test_the_variable_names_one_model(vidfuse, trained, clips):
    variable = {"VIDFUSE_MODEL": str(trained.run)}
    answer = vidfuse("predict", clips[0], env=variable)
    assert answer.code == 0, answer.err
    assert answer.err.count("Model: ") == 1
    named = vidfuse("predict", clips[0], "--model", "missing", env=variable)
    assert named.code == 2, "the command line wins"
