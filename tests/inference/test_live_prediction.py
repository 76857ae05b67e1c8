"""Decisions on live streams: those that the same frames of a file give, and when they are made."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from heard import Heard
from live_streams import serve, standard_input, write_stream

import vidfuse
from vidfuse.backbones.precision import PrecisionSelector
from vidfuse.errors import InputError, UserError
from vidfuse.features.dense import dense_features
from vidfuse.inference.config import TimelineConfig
from vidfuse.inference.live import LiveRun, StepByStep
from vidfuse.inference.predictor import find_model
from vidfuse.inference.timeline import TimelinePredictor
from vidfuse.progress import Reporter
from vidfuse.results import LiveRecord
from vidfuse.video.live import Sample

# Other batches may differ in the last bits of float32, and move a float16 by one step.
CLOSE: dict[str, Any] = {"rtol": 2**-7, "atol": 2**-9}
SECONDS = 5
WINDOW: dict[str, Any] = {"window": 0.8, "step": 0.4}  # of four samples


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream") / "stream.ts", SECONDS)


@pytest.fixture(scope="module")
def train_dense(train: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains a model that classifies each moment, with a head's options."""
    root = tmp_path_factory.mktemp("long")
    rows = [("path", "label", "group", "start", "end")]
    for seed in range(4):
        write_stream(root / f"{seed}.ts", 6 + seed / 10)
        for label, start, end in (("one", "0", "3"), ("two", "3", "6")):
            rows.append((f"{seed}.ts", label, f"g{seed}", start, end))
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    def run(**options: Any) -> str:
        settings = {"timeline": "dense", "window": 2.0, "rate": 5.0, "head": "gru"}
        return train(root / "manifest.csv", **settings, head_options=options, frames=16)

    return run


def live(path: Path, run: str, **settings: Any) -> list[LiveRecord]:
    with standard_input(path.read_bytes()):
        return list(vidfuse.predict_live("pipe:", model=run, top=9, **settings))


def read_file(path: Path, run: str, **settings: Any) -> tuple[TimelinePredictor, Any, Any]:
    """A predictor, and features and times of a file as it reads them."""
    card = find_model(run, Reporter())
    config = TimelineConfig(use_cache=False, workers=1, **settings)
    predictor = TimelinePredictor(card, config, Reporter())
    found = []
    for _, entry in dense_features(predictor.extractor, predictor.pool, path):
        assert not isinstance(entry, InputError)
        found.append(entry)
    predictor.pool.close()
    features = np.concatenate([entry.features for entry in found])
    return predictor, features, np.concatenate([entry.times for entry in found])


def check(records: list[LiveRecord], expected: Any, classes: list[str], times: Any) -> None:
    """See that records are scores ``[N, C]`` at times ``[N]``, which differ by more than errors."""
    assert len(records) == 1 or np.ptp(expected, axis=0).max() > 0.02
    assert [record.time for record in records] == pytest.approx(list(times), abs=1e-4)
    for record, scores in zip(records, expected, strict=True):
        found = {each.label: each.score for each in record.top}
        np.testing.assert_allclose([found[name] for name in classes], scores, **CLOSE)
        assert (record.label, record.score) == (record.top[0].label, max(found.values()))
        assert record.delay > 0


def test_a_clip_model_sees_the_last_window(stream: Path, run: str):
    predictor, features, times = read_file(stream, run, window=WINDOW["window"])
    starts = range(0, len(features) - 3, 2)
    windows = np.stack([features[start : start + 4] for start in starts])
    expected = predictor.model.probabilities(windows, np.full(len(windows), 4))
    records = live(stream, run, **WINDOW)
    assert len(records) == 11
    check(records, expected, predictor.card.classes, times[3::2])
    assert {record.source for record in records} == {"pipe:"}


def test_a_recurrence_goes_from_sample_to_sample(stream: Path, train_dense: Any):
    """And its decisions are those of a pass over the whole stream, at every sample of it."""
    run = train_dense(bidirectional=False, inputs="frames")
    predictor, features, times = read_file(stream, run)
    expected = predictor.model.probabilities(
        features[None], np.array([len(features)]), of_frames=True
    )[0]
    records = live(stream, run)
    assert len(records) == SECONDS * 5
    check(records, expected, predictor.card.classes, times)
    every_other = live(stream, run, step=0.4)
    check(every_other, expected[1::2], predictor.card.classes, times[1::2])


def test_what_reads_from_both_ends_is_asked_about_the_last_window(stream: Path, train_dense: Any):
    run = train_dense()  # deviations, and bidirectional
    predictor, features, times = read_file(stream, run)
    expected = []
    for end in range(5, len(features) + 1, 5):
        window = features[max(0, end - 10) : end][None]
        lengths = np.array([window.shape[1]])
        expected.append(predictor.model.probabilities(window, lengths, of_frames=True)[0, -1])
    records = live(stream, run, step=1.0)
    check(records, expected, predictor.card.classes, times[4::5])


def test_a_pipe_shorter_than_a_window_is_one_decision(tmp_path: Path, run: str):
    path = write_stream(tmp_path / "short.ts", 0.6)
    predictor, features, times = read_file(path, run, window=WINDOW["window"])
    assert len(features) == 3
    (record,) = live(path, run, **WINDOW)
    expected = predictor.model.probabilities(features[None], np.array([3]))
    check([record], expected, predictor.card.classes, times[-1:])


def test_a_gap_begins_a_new_window(stream: Path, run: str, tmp_path: Path):
    """No window has frames of both sides of it."""
    both = tmp_path / "both.ts"
    later = write_stream(tmp_path / "later.ts", SECONDS, first=60)
    both.write_bytes(stream.read_bytes() + later.read_bytes())
    records = live(both, run, **WINDOW)
    alone = live(stream, run, **WINDOW)
    assert len(records) == 2 * len(alone)
    assert [each.top for each in records[: len(alone)]] == [each.top for each in alone]
    after = records[len(alone) :]
    assert after[0].time > 60
    for one, two in zip(after, alone, strict=True):
        assert one.score == pytest.approx(two.score, abs=0.02)


class Counting:
    """Stands in for a predictor: what decides says what it was given."""

    length = 4

    def __init__(self) -> None:
        self.taken: list[float] = []

    def decider(self) -> Any:
        return SimpleNamespace(add=lambda features: self.taken.append(float(features[0])))


def sample(number: int, moments: int = 1, run: int = 0) -> Sample:
    return Sample(run, number, moments, 0.0, 0.0, np.zeros((1, 1, 3), np.uint8))


def test_samples_that_were_dropped_are_the_one_before():
    predictor: Any = Counting()
    run = LiveRun(predictor, 0)
    for number, moments, value in ((5, 1, 1.0), (6, 2, 2.0), (10, 1, 3.0)):
        assert run.goes_on(sample(number))
        assert list(run.add(sample(number, moments), np.array([value], np.float16))) == []
    assert predictor.taken == [1, 2, 2, 2, 2, 3]
    assert run.goes_on(sample(15))
    assert not run.goes_on(sample(16)), "more are missing than a window has"
    assert not run.goes_on(sample(11, run=1))


def test_a_decision_every_so_many_samples():
    states = []

    def following(features: Any, state: Any, _: str) -> tuple[Any, int]:
        states.append(state)
        return features, (state or 0) + 1

    predictor: Any = SimpleNamespace(
        reporter=Reporter(),
        model=SimpleNamespace(next_probabilities=following),
        device="cpu",
        checked=lambda scores: scores,
    )
    steps = StepByStep(predictor, 3)
    found = [steps.add(np.array([float(i)], np.float16)) for i in range(7)]
    assert [each is not None for each in found] == [False, False, True, False, False, True, False]
    assert states == [None, 1, 2, 3, 4, 5, 6]


def readers() -> list[psutil.Process]:
    """The processes that read streams for this one; not what others left to be collected."""
    alive = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "live_worker" in str(p.cmdline())]


def test_nothing_is_left_behind(stream: Path, run: str):
    content = stream.read_bytes()
    with serve(content, rate=len(content) / SECONDS, endless=True) as server:
        records = vidfuse.predict_live(server.url, model=run, **WINDOW)
        first = next(records)
        assert len(readers()) == 1
        records.close()
    assert first.source == server.url
    assert first.delay < 5
    assert readers() == []


def test_what_does_not_fit(run: str):
    settings: dict[str, Any]
    for settings, said in (
        ({"smooth": 1.0}, "--smooth is not for --live"),
        ({"segment_cost": 1.0}, "--segment-cost is not for --live"),
        ({"background": "class0"}, "--background is not for --live"),
        ({"views": 2}, "--views is not for --live"),
        ({"patience": 0}, "patience"),
        ({"top": 0}, "top"),
    ):
        with pytest.raises(UserError, match=said):
            vidfuse.predict_live("pipe:", model=run, **settings)
    with pytest.raises(UserError, match="no such file or device"):
        vidfuse.predict_live("nowhere", model=run)
    heard = Heard()
    with serve(b"") as server, pytest.raises(InputError, match="no frame for 1 s"):
        list(vidfuse.predict_live(server.url, model=run, patience=1, reporter=heard))


def test_another_precision_is_tried_once(stream: Path, run: str, monkeypatch: pytest.MonkeyPatch):
    """It is compared with fp32, which would take longer than to encode a few frames."""
    chosen = []
    choose = PrecisionSelector.choose

    def counting(self: PrecisionSelector, *arguments: Any) -> Any:
        chosen.append(choose(self, *arguments))
        return chosen[-1]

    monkeypatch.setattr(PrecisionSelector, "choose", counting)
    assert len(live(stream, run, precision="bf16", **WINDOW)) == 11
    assert [each.precision for each in chosen] == ["bf16"]
