"""``vidfuse compare`` as a process."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from program import NETWORK, interrupt

QUICK = (
    *(*NETWORK, "--frames", "4", "--workers", "1", "--heads", "middle", "--epochs", "2"),
    *("--folds", "3", "--seeds", "1", "--lrs", "0.01", "--dropouts", "0.5", "--jobs", "1"),
)


def test_the_result_in_every_form(vidfuse, dataset, tmp_path):
    answer = vidfuse("compare", dataset, *QUICK, "--format", "json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert {row["name"] for row in summary["heads"]} == {"mean", "middle"}
    assert summary["out"] == "runs/compare-squares"
    assert (tmp_path / "runs/compare-squares/pareto.png").exists()
    assert "\x1b" not in answer.err

    text = vidfuse("compare", dataset, *QUICK)
    assert text.code == 0, text.err
    assert "6 of 6 folds are done already" in text.err
    lines = text.out.splitlines()
    assert lines[0].split() == [
        "head",
        "accuracy",
        "95",
        "%",
        "interval",
        "macro",
        "F1",
        "to",
        "mean",
        "p",
    ]
    assert [line.split()[0] for line in lines[1:5]][2:] == ["majority", "geometry"]
    assert " ".join(summary["advice"].split()) in " ".join(text.out.split())
    assert max(map(len, lines)) <= 100

    table = vidfuse("compare", dataset, *QUICK, "--format", "csv", "--quiet")
    assert (table.code, table.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["kind"] for row in rows] == ["head", "head", "baseline", "baseline"]
    assert (tmp_path / "runs/compare-squares/results.csv").read_text() == table.out


def test_orders_can_be_left_out(vidfuse, dataset):
    with_them = vidfuse("compare", dataset, *QUICK)
    without = vidfuse("compare", dataset, *QUICK, "--no-orders")
    assert (with_them.code, without.code) == (0, 0), without.err
    title = "Does the head use frame order?"
    assert title in with_them.out
    assert title not in without.out
    assert "ms alone" in without.out


def test_the_table_of_encoders(vidfuse, dataset):
    names = ("resnet18", "resnet34.IMAGENET1K_V1")
    own = ("--backbone", "thin_efficientnet")  # the default, which --backbones stands for
    words = ("compare", dataset, *QUICK, *own, "--backbones", ",".join(names))
    answer = vidfuse(*words, "--format", "json")
    assert answer.code == 0, answer.err
    rows = json.loads(answer.out)["heads"]
    assert {(row["backbone"], row["name"]) for row in rows} == {
        (name, head) for name in names for head in ("mean", "middle")
    }
    text = vidfuse(*words)
    assert text.code == 0, text.err
    assert "12 of 12 folds are done already" in text.err
    lines = text.out.splitlines()
    assert lines[2].split() == ["head", *names]
    assert [line.split()[0] for line in lines[3:7]][2:] == ["majority", "geometry"]
    best = rows[0]
    (marked,) = (line for line in lines if "*" in line and line.startswith(best["name"]))
    assert f"{best['accuracy']:.3f} (" in marked
    for row in rows[1:]:
        assert f"{row['to_best']:+.3f} ({row['to_best_p_value']:.3f})" in text.out
    table = vidfuse(*words, "--format", "csv", "--quiet")
    assert [each["backbone"] for each in csv.DictReader(io.StringIO(table.out))] == [
        *(row["backbone"] for row in rows),
        "",
        "",
    ]


@pytest.mark.parametrize("orders", [True, False])
def test_orders_are_named_only_where_they_were_measured(orders):
    from vidfuse.cli.compare import _text_of_several

    protocol = {"settings": {"orders": orders}}
    made_up: Any = SimpleNamespace(
        heads=[], backbones=[], baselines={}, advice="", out="out", protocol=protocol
    )
    assert ("Orders of frames" in _text_of_several(made_up)) == orders


def test_what_choosing_frames_is_worth(vidfuse, dataset, tmp_path):
    words = ("compare", dataset, *QUICK, "--heads", "policy")
    answer = vidfuse(*words, "--format", "json")
    assert answer.code == 0, answer.err
    rows = {row["name"]: row for row in json.loads(answer.out)["heads"]}
    assert rows["mean"]["frame_budget"] is None
    own = rows["policy"]["frame_budget"]["own"]
    assert own["policy"] == pytest.approx(rows["policy"]["accuracy"])
    image = tmp_path / "runs/compare-squares/frame_budget.png"
    assert image.read_bytes().startswith(b"\x89PNG")
    text = vidfuse(*words).out
    assert (
        f"policy observes {own['frames']:.1f} of 4 frames, accuracy {own['policy']:.3f}. With the "
        f"same weights and as many frames: uniform {own['uniform']:.3f}, " in " ".join(text.split())
    )
    assert vidfuse("compare", dataset, *QUICK).code == 0
    assert not image.exists(), "it is of another comparison"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_then_the_same_command(vidfuse, feature_cache, dataset, tmp_path):
    words = ("compare", dataset, *QUICK, "--epochs", "150", "--seeds", "3", "--out", "out")
    fits = tmp_path / "out" / "fits"

    def some_done() -> bool:
        return fits.exists() and any(fits.glob("*.npz"))

    answer = interrupt(feature_cache, *words, cwd=tmp_path, ready=some_done)
    assert (answer.code, answer.out) == (130, "")
    assert "of 18 folds are kept in out/fits; go on with the same command" in answer.err
    assert answer.err.endswith("Interrupted.\n")
    assert "Traceback" not in answer.err
    kept = len(list(fits.glob("*.npz")))
    assert 1 <= kept < 18
    again = vidfuse(*words)
    assert again.code == 0, again.err
    assert f"{kept} of 18 folds are done already" in again.err
    assert sorted(path.name for path in Path(tmp_path, "out").iterdir()) == [
        *(".lock", "fits", "leaderboard.png", "pareto.png", "results.csv", "results.json")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--heads", "lstn"), "unknown: lstn"),
        (("--budget", "soon"), "budget: 'soon' is not a time such as 90s, 10m or 1h30m"),
        (("--folds", "9"), "3 groups cannot make 9 folds\nUse --folds 3."),
        (("--backbones", "resnet18,resnett"), "backbones: unknown backbone 'resnett'"),
        (("--lrs", "0"), "lrs: 0 is not above 0"),
    ],
)
def test_wrong_usage(vidfuse, dataset, words, message):
    answer = vidfuse("compare", dataset, *QUICK, *words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def test_a_head_that_fails_makes_the_exit_code_1(vidfuse, dataset, tmp_path):
    # One of another package: it is announced, found, and breaks when it is used.
    package = tmp_path / "installed"
    (package / "brokenhead-1.dist-info").mkdir(parents=True)
    (package / "brokenhead-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: brokenhead\nVersion: 1\n"
    )
    (package / "brokenhead-1.dist-info" / "entry_points.txt").write_text(
        "[vidfuse.heads]\nbroken = brokenhead:Broken\n"
    )
    (package / "brokenhead.py").write_text(
        "from vidfuse.heads.pooling import Mean\n"
        "class Broken(Mean):\n"
        "    def forward(self, features, lengths):\n"
        "        raise RuntimeError('it is broken')\n"
    )
    root = Path(__file__).resolve().parents[2]
    answer = vidfuse(
        *("compare", dataset, *QUICK, "--heads", "broken,middle", "--jobs", "2"),
        *("--format", "json"),
        env={"PYTHONPATH": os.pathsep.join((str(root), str(package)))},
    )
    assert answer.code == 1, answer.err
    assert "head 'broken' failed: RuntimeError: it is broken" in answer.err
    summary = json.loads(answer.out)
    assert {row["name"] for row in summary["heads"]} == {"mean", "middle"}
    assert [each["name"] for each in summary["failed_heads"]] == ["broken"]
