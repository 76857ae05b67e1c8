"""``vidfuse bench`` on tiny clips; times themselves are the machine's."""

from __future__ import annotations

import json

import pytest
from program import NETWORK
from typer.testing import CliRunner

from vidfuse import benchmark
from vidfuse.cli.bench import app


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(benchmark, "SIDE", 256)


def run(*arguments, code=0):
    words = [*map(str, arguments), *NETWORK, "--frames", "4", "--workers", "1", "--repeats", "1"]
    words += ["--seconds", "0.01"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == code, answer.output
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


def test_what_cannot_be_read_is_counted_and_ends_with_1(clips, tmp_path):
    (tmp_path / "torn.mp4").write_bytes(clips[0].read_bytes()[:100])
    inputs = (clips[0], tmp_path / "torn.mp4", tmp_path / "*.mov")
    report = json.loads(run(*inputs, "--format", "json", code=1))
    assert (report["distinct_clips"], report["failed"]) == (1, 2)
