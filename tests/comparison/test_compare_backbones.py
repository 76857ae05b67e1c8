"""The table encoder × head: the same clips, folds and fits as if each encoder were alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from heard import Heard

from vidfuse.backbones import DEFAULT_BACKBONE
from vidfuse.comparison import fits
from vidfuse.comparison.advice import Advice, advise_of_several
from vidfuse.comparison.leaderboard import set_beside_best
from vidfuse.comparison.plan import Candidate, Plan
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.features.extract import Extractor
from vidfuse.statistics import mean_interval, paired_sign_flip
from vidfuse.training.data import TrainingData

HUB = {"weights": None, "layer": None, "size": None}
TWO = {"backbones": "resnet18,resnet34", "backbone": DEFAULT_BACKBONE, "seeds": 1}


def test_every_encoder_with_every_head(compare, tmp_path):
    heard = Heard()
    summary = compare(**TWO, reporter=heard)
    rows = summary["heads"]
    assert sorted((row["backbone"], row["name"]) for row in rows) == [
        *(("resnet18", "mean"), ("resnet18", "middle")),
        *(("resnet34", "mean"), ("resnet34", "middle")),
    ]
    best, *others = rows
    assert best["accuracy"] == max(row["accuracy"] for row in rows)
    assert best["to_best"] is best["to_best_p_value"] is None
    for row in others:
        assert row["to_best"] == pytest.approx(row["accuracy"] - best["accuracy"])
    for row in rows:
        own = {each["name"]: each for each in rows if each["backbone"] == row["backbone"]}
        if row["name"] != "mean":
            gained = row["accuracy"] - own["mean"]["accuracy"]
            assert row["difference"] == pytest.approx(gained), "to mean on the same encoder"
    assert [each["name"] for each in summary["backbones"]] == ["resnet18", "resnet34"]
    assert list(summary["protocol"]["specs"]) == ["resnet18", "resnet34"]
    assert set(summary["baselines"]) == {"majority", "geometry"}
    out = tmp_path / "out"
    assert json.loads((out / "results.json").read_text()) == summary
    assert (out / "leaderboard.png").exists()
    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["backbone"] for line in lines] == [*(row["backbone"] for row in rows), "", ""]
    assert float(lines[1]["to_best"]) == rows[1]["to_best"]
    assert {row[0] for row in heard.boards[-1]} == {
        f"{row['name']} on {row['backbone']}" for row in rows
    }


def test_its_fits_are_those_of_each_encoder_by_itself(compare, fitted, tmp_path):
    alone = compare(backbone="resnet34", seeds=1)
    assert "backbone" not in alone["heads"][0]
    assert "backbones" not in alone
    assert (tmp_path / "out" / "pareto.png").exists()
    assert len(fitted) == 2 * 2
    both = compare(**TWO)
    assert {task.candidate.backbone for task in fitted[4:]} == {"resnet18"}
    assert len(fitted) == 8
    assert not (tmp_path / "out" / "pareto.png").exists(), "it is of another comparison"
    compare(**TWO)
    assert len(fitted) == 8, "nothing is fitted twice"
    found = {row["name"]: row for row in both["heads"] if row["backbone"] == "resnet34"}
    for row in alone["heads"]:
        for name in ("accuracy", "accuracy_interval", "shuffled", "difference", "p_value"):
            assert found[row["name"]][name] == row[name]
    again = {each["name"]: each for each in both["backbones"]}
    assert again["resnet34"]["advice"] == alone["advice"]


def test_a_clip_that_one_encoder_cannot_read_is_left_out_for_all(compare, monkeypatch):
    gather = TrainingData.gather

    def unlucky(self, clips, **more):
        found = gather(self, clips, **more)
        if self.config.backbone == "resnet34":
            found.rows.popitem()
        return found

    monkeypatch.setattr(TrainingData, "gather", unlucky)
    summary = compare(**TWO, epochs=1)
    assert summary["clips"] == 23
    assert len(summary["heads"]) == 4


def test_an_encoder_that_is_not_here_is_told_before_any_work(compare, monkeypatch, tmp_path):
    monkeypatch.setattr("vidfuse.backbones.find_spec", lambda name: None)
    monkeypatch.setattr(Extractor, "run", None)
    with pytest.raises(UserError, match="efficientnet_lite1") as error:
        compare(**TWO | {"backbones": "thin_resnet,efficientnet_lite1"}, **HUB)
    assert "pip install" in str(error.value.hint)
    assert not (tmp_path / "out").exists()


def test_one_number_of_epochs_for_all_encoders(compare, monkeypatch):
    timed = []

    def seconds(_self, candidate):
        timed.append(candidate.backbone)
        return 2.0

    monkeypatch.setattr(fits.FitRunner, "seconds_per_epoch", seconds)
    # 2 folds of 4 candidates; middle is fitted shuffled too, and each fit is followed by another
    # of all clips: 24 fits.
    summary = compare(**TWO, budget="4m", epochs=9)
    assert summary["protocol"]["epochs"] == int(240 / (1.15 * 24 * 2)) == 4
    assert timed == ["resnet18", "resnet34"] * 2


CLIPS = [Clip(Path("x.mp4"), "ab"[i % 2], f"g{i // 2}") for i in range(12)]
PLAN = Plan(CLIPS, [], ["a", "b"], [], "protocol")
NETS = ("resnet50", "efficientnet_lite0", "thin_efficientnet")  # the costly one first


def made_up(*rights):
    """Rows of one head on as many encoders, each right on its first so many clips of twelve."""
    shares = {
        Candidate("mean", name, 1): (np.arange(12) < right).astype(float)
        for name, right in zip(NETS, rights, strict=False)
    }
    rows = {
        each: {"name": "mean", "accuracy": hits.mean(), "multiply_adds": number}
        for number, (each, hits) in enumerate(shares.items())
    }
    return shares, set_beside_best(PLAN, shares, rows, frames=16)


def test_differences_to_the_best_are_paired_over_groups():
    shares, rows = made_up(4, 10, 6)
    assert [row["backbone"] for row in rows] == [NETS[1], NETS[2], NETS[0]]
    groups = [clip.group for clip in CLIPS]
    four, ten, six = shares.values()
    assert rows[1]["to_best"] == pytest.approx(-4 / 12)
    assert rows[1]["to_best_interval"] == mean_interval(six - ten, groups)
    assert rows[2]["to_best_p_value"] == paired_sign_flip(four, ten, groups) == 2 / 2**3


def test_of_equally_accurate_ones_the_cheaper_is_the_best():
    _, rows = made_up(6, 6)
    assert rows[0]["backbone"] == NETS[1], "with the encoder, whose share is by far the largest"
    assert rows[1]["to_best"] == 0


def test_the_advice_names_the_encoder_and_those_that_are_worse():
    rows = [
        {"name": "lstm", "backbone": "big", "accuracy": 0.9, "to_best_p_value": None},
        {"name": "mean", "backbone": "big", "accuracy": 0.8, "to_best_p_value": 0.2},
        {"name": "lstm", "backbone": "small", "accuracy": 0.5, "to_best_p_value": 0.001},
    ]
    advices = {"big": Advice("mean", "Take `mean`."), "small": Advice(None, "Nothing.")}
    advice = advise_of_several(rows, advices)
    assert advice.head == "mean"
    assert advice.text == (
        "`lstm` on `big` is the best, with 0.900; 1 of the 2 others is not distinguishable from "
        "it (p >= 0.05, uncorrected). With `small` every head is significantly worse. Of the heads "
        "on `big`: Take `mean`."
    )


@pytest.mark.parametrize(
    ("p_values", "told"),
    [
        ([], "is the best, with 0.900."),
        ([0.5], "; the other is not distinguishable from it (p >= 0.05"),
        ([0.01], "; the other is distinguishable from it (p < 0.05"),
        ([0.5, 0.01], "; 1 of the 2 others is not distinguishable"),
        ([0.5, 0.6, 0.01], "; 2 of the 3 others are not distinguishable"),
        ([0.01, 0.02], "; all 2 others are distinguishable from it (p < 0.05"),
    ],
)
def test_how_many_are_as_good_in_words(p_values, told):
    rows = [
        {"name": "mean", "backbone": f"net{n}", "accuracy": 0.9, "to_best_p_value": value}
        for n, value in enumerate([None, *p_values])
    ]
    advices = {row["backbone"]: Advice("mean", "Take it.") for row in rows}
    assert told in advise_of_several(rows, advices).text
