"""``vidfuse heads``."""

from __future__ import annotations

import json

import pytest

from vidfuse.cli.console import human_count
from vidfuse.heads import HEADS, head_names

SMALL = ("--channels", "8", "--frames", "4", "--classes", "3")


def test_all_heads_are_listed_with_what_they_need_and_cost(vidfuse):
    answer = vidfuse("heads", *SMALL, "--format", "json")
    assert (answer.code, answer.err) == (0, "")
    document = json.loads(answer.out)
    assert (document["channels"], document["frames"], document["classes"]) == (8, 4, 3)
    heads = {head["name"]: head for head in document["heads"]}
    assert list(heads) == head_names()
    mean = heads["mean"]
    assert (mean["input"], mean["grid"], mean["extra"]) == ("[T, D, 1, 1]", 1, None)
    assert (mean["order_aware"], mean["reversal_aware"], mean["available"]) == (False, False, True)
    assert mean["multiply_adds"] == 8 * 3
    assert mean["parameters"] == 2 * 8 + 8 * 3 + 3
    assert [option["name"] for option in mean["options"]] == ["dropout"]
    assert heads["gcn"]["extra"] == "graph"
    assert "latency_ms" not in mean


def test_the_text_has_a_line_for_each_head(vidfuse):
    answer = vidfuse("heads", *SMALL)
    assert (answer.code, answer.err) == (0, "")
    header, *rows = answer.out.splitlines()
    columns = ["head", "input", "order", "direction", "parameters", "multiply-adds", "extra"]
    assert header.split() == columns
    assert [row.split()[0] for row in rows] == sorted(HEADS)


def test_a_named_head_is_shown_with_its_options_and_can_be_timed(vidfuse):
    answer = vidfuse("heads", "parallel", "--latency", *SMALL)
    assert answer.code == 0
    assert "ms alone  ms batched" in answer.out
    assert "\n  fusion=concat (concat, sum, gated, bilinear)\n      How the two" in answer.out
    latency = vidfuse("heads", "mean", "--latency", *SMALL, "--format", "json").out
    assert set(json.loads(latency)["heads"][0]["latency_ms"]) == {"alone", "batched", "batch"}


def test_help_is_there_where_python_drops_docstrings(vidfuse):
    plain = vidfuse("heads", "lstm", *SMALL)
    stripped = vidfuse("heads", "lstm", *SMALL, env={"PYTHONOPTIMIZE": "2"})
    assert (stripped.code, stripped.err) == (0, "")
    assert stripped.out == plain.out
    assert "Units in each recurrent layer" in stripped.out


def test_an_unknown_head_is_told(vidfuse):
    answer = vidfuse("heads", "lsmt")
    assert (answer.code, answer.out) == (2, "")
    assert "unknown head 'lsmt'. Did you mean 'lstm'?" in answer.err


@pytest.mark.parametrize(
    ("count", "text"),
    [(7, "7"), (999, "999"), (6154, "6.15 k"), (338_000, "338 k"), (999_700, "1.00 M")],
)
def test_counts_have_three_digits(count, text):
    assert human_count(count) == text
    assert human_count(5 * 10**9) == "5.00 G"
