import json
from typing import Any

import pytest

from vidfuse.errors import UnknownNameError
from vidfuse.heads import HEADS, build_head
from vidfuse.heads.describe import describe
from vidfuse.heads.pooling import Mean

SHAPE: dict[str, Any] = {"channels": 8, "frames": 4, "classes": 3}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_says_what_it_is_and_explains_its_options(name):
    head = json.loads(json.dumps(describe(name, **SHAPE)))
    assert head["input"] == f"[T, D, {head['grid']}, {head['grid']}]"
    assert head["summary"].endswith(".")
    assert head["available"]
    assert head["problem"] is None
    assert head["parameters"] > 0
    for option in head["options"]:
        assert option["help"].endswith("."), option
    names = [option["name"] for option in head["options"]]
    assert names == list(build_head(name, channels=8, grid=1, classes=3).settings)


def test_options_have_defaults_choices_and_help():
    options = {option["name"]: option for option in describe("parallel", **SHAPE)["options"]}
    assert options["fusion"] == {
        "name": "fusion",
        "default": "concat",
        "choices": ["concat", "sum", "gated", "bilinear"],
        "help": "How the two branches become one vector.",
    }
    # An argument that a base class documents.
    hidden = next(each for each in describe("lstm", **SHAPE)["options"] if each["name"] == "hidden")
    assert hidden["help"] == "Units in each recurrent layer and direction."
    assert hidden["choices"] is None


def test_a_head_that_needs_a_package_is_described_without_it(monkeypatch):
    monkeypatch.setattr(Mean, "requires", ("no_such_module",))
    monkeypatch.setattr(Mean, "extra", "graph")
    head = describe("mean", latency=True, **SHAPE)
    assert (head["input"], head["extra"], head["available"]) == ("[T, D, 1, 1]", "graph", False)
    assert 'pip install "vidfuse[graph]"' in head["problem"]
    assert head["parameters"] is head["multiply_adds"] is head["latency_ms"] is None


def test_a_head_that_reads_the_backbone_s_own_map(monkeypatch):
    monkeypatch.setattr(Mean, "grid", "native")
    head = describe("mean", **SHAPE)
    assert (head["input"], head["grid"]) == ("[T, D, g, g]", "native")
    assert head["multiply_adds"] == 8 * 7 * 7 * 3


def test_unknown_heads_are_refused():
    with pytest.raises(UnknownNameError):
        describe("lsmt", **SHAPE)
