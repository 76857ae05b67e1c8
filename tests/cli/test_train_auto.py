"""``vidfuse train --head auto`` as a process."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from heard import Heard
from program import NETWORK, interrupt

from vidfuse import train
from vidfuse.errors import UserError

# Three groups are too few to divide by again; clips are not.
QUICK = (
    *(*NETWORK, "--frames", "3", "--workers", "1", "--epochs", "1", "--head", "auto"),
    *("--split", "random", "--out", "run"),
)
TINY_SETTINGS: dict[str, Any] = {
    **{"backbone": "resnet18", "layer": "layer1", "weights": "random", "size": 32, "frames": 3},
    **{"workers": 1, "epochs": 1, "head": "auto", "split": "random"},
}


def test_what_was_tried_and_what_came_out(vidfuse, dataset, tmp_path):
    words = ("train", dataset, *QUICK, "--backbone", "resnet18,resnet34", "--budget", "10m")
    answer = vidfuse(*words, "--format", "json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    choice = result["choice"]
    assert result["head"] == choice["head"]
    assert len(choice["tried"]) == 2 * 18
    assert choice["reason"] in answer.err
    assert result["test"]["in_training"] == 0
    assert json.loads((tmp_path / "run" / "auto.json").read_text())["choices"] == [choice]

    ended = vidfuse("train", "--resume", "run")
    assert (ended.code, ended.out) == (2, "")
    assert "this run has ended" in ended.err
    predicted = vidfuse("predict", dataset / "left", "--model", "run", "--format", "json")
    assert predicted.code == 0, predicted.err


def test_the_table_as_text(vidfuse, dataset):
    answer = vidfuse("train", dataset, *QUICK, "--budget", "0.001s")
    assert answer.code == 0, answer.err
    assert answer.out == "run/model.safetensors\n"
    lines = answer.err.splitlines()
    assert any("Warning: a budget of 0.001 s was too small" in line for line in lines)
    assert not any(line.startswith("head ") for line in lines), "a header without a table"
    assert "There was no time for any of the 18 candidates." in lines
    assert sum("clips, 2 classes" in line for line in lines) == 1
    assert any(line.startswith("Test, which nothing was chosen by: accuracy") for line in lines)
    assert not any("Measure it on clips" in line for line in lines)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_while_extracting_then_resume(dataset, tmp_path, monkeypatch):
    """As a function: how far an extraction of few clips is cannot be seen from outside."""
    heard, out = Heard(), tmp_path / "run"
    options: dict[str, Any] = {**TINY_SETTINGS, "cache": str(tmp_path / "cache")}

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vidfuse.comparison.tables.Tables.fill", press)
        with pytest.raises(KeyboardInterrupt):
            train(dataset, out=out, reporter=heard, budget="0.001s", **options)
    assert heard.warnings[-1].endswith(f"go on with: vidfuse train --resume {out}")
    assert train(resume=out).model == str(out / "model.safetensors")


def test_features_that_cannot_be_extracted_leave_no_run_to_resume(dataset, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise UserError("too many clips failed")

    monkeypatch.setattr("vidfuse.comparison.tables.Tables.fill", fail)
    options: dict[str, Any] = {**TINY_SETTINGS, "cache": str(tmp_path / "cache")}
    for _ in range(2):  # the same command again
        with pytest.raises(UserError, match="too many clips failed"):
            train(dataset, out=tmp_path / "run", **options)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_then_resume(vidfuse, feature_cache, dataset, tmp_path):
    fits = tmp_path / "run" / "fits"

    def some_done() -> bool:
        return fits.exists() and any(fits.glob("*.npz"))

    words = ("train", dataset, *QUICK, "--epochs", "100", "--patience", "0")
    answer = interrupt(feature_cache, *words, cwd=tmp_path, ready=some_done)
    assert (answer.code, answer.out) == (130, "")
    assert "go on with: vidfuse train --resume run" in answer.err
    assert "Traceback" not in answer.err
    kept = len(list(fits.glob("*.npz")))
    assert 1 <= kept < 72
    assert not list((tmp_path / "run").glob("features-*"))
    other = vidfuse("train", "--resume", "run", "--lr", "0.5")
    assert (other.code, other.out) == (2, "")
    assert "not with others for lr" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--head", "auto", "--budget", "soon"), "budget: 'soon' is not a time such as 90s"),
        (("--head", "mean", "--budget", "5m"), "--budget is the time in which --head auto chooses"),
        (("--head", "auto", "--head-option", "hidden=8"), "head_options: they belong to one head"),
        (("--head", "auto", "--backbone", "resnet18,resnett"), "unknown backbone 'resnett'"),
        (("--head", "auto"), "too few to choose a head by: "),
    ],
)
def test_wrong_usage(vidfuse, dataset, words, message):
    answer = vidfuse("train", dataset, *NETWORK, "--frames", "3", *words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert "Traceback" not in answer.err
