"""``vidfuse bench`` on tiny clips; times themselves are the machine's."""

from __future__ import annotations

import json

import pytest
from program import NETWORK
from typer.testing import CliRunner

from vidfuse.cli.bench import app
from vidfuse.features import bench


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bench, "SIDE", 256)


def run(*arguments):
    words = [*map(str, arguments), *NETWORK, "--frames", "4", "--workers", "1", "--repeats", "1"]
    words += ["--seconds", "0.01"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_json_and_text(clips, dataset):
    report = json.loads(run(*clips[:2], "--format", "json", "--precision", "fp32"))
    rates = ("decode_only", "forward_only", "pipeline", "limit", "gemm_fraction")
    assert all(report[name] > 0 for name in rates)
    assert (report["precision"], report["reason"]) == ("fp32", "as asked for")
    assert report["distinct_clips"] == 2
    text = run(dataset)
    for words in ("decoding alone", "extraction reaches", "of the limit", "precision "):
        assert words in text
