"""A model that chooses its frames, from the cache and live."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidfuse
from vidfuse.cli.console import write_records
from vidfuse.data.clip import Clip
from vidfuse.features.cache import Store
from vidfuse.inference.config import InferenceConfig
from vidfuse.inference.predictor import Ensemble, Prediction
from vidfuse.model import Model
from vidfuse.progress import Reporter
from vidfuse.results import Record
from vidfuse.rpc import Child
from vidfuse.video.frames import FrameRequest
from vidfuse.video.open_clips import OpenClips

SEEN = ["glimpses", "frames_encoded", "frames_decoded"]
# Features of other batches may differ in their last bit of float16; see test_same_answer.py.
TOLERANCE = 1e-4
OPTIONS: dict[str, Any] = {"hidden": 16, "max_looks": 3, "cost": 0.05}


@pytest.fixture(scope="module")
def policy(train: Any, dataset: Path) -> str:
    return str(train(dataset, head="policy", frames=6, head_options=OPTIONS, epochs=4, refit=False))


@pytest.fixture
def predict(policy: str, tmp_path: Path) -> Any:
    """Predicts without a cache of its own."""

    def go(*inputs: Any, **settings: Any) -> list[dict[str, Any]]:
        options: dict[str, Any] = {"model": policy, "cache": str(tmp_path / "cache"), "workers": 2}
        return [record.to_dict() for record in vidfuse.predict(inputs, **{**options, **settings})]

    return go


def test_a_record_says_what_was_seen(predict: Any, dataset: Path, tmp_path: Path) -> None:
    paths = sorted(dataset.rglob("*.mkv"))[:5]
    records = predict(*paths)
    for path, record in zip(paths, records, strict=True):
        assert list(record)[-3:] == SEEN
        assert record["ok"], record["error"]
        assert 1 <= len(record["glimpses"]) == record["frames_encoded"] <= 3
        assert len(set(record["glimpses"])) == len(record["glimpses"])
        # These videos are short: decoded once, as a whole.
        seed = int(path.stem[1:])
        assert record["frames_decoded"] == 6 + seed % 5
    assert list(Store(tmp_path / "cache").entries()) == [], "an entry holds all candidates"


def test_live_and_cached_answers_are_the_same(
    predict: Any, dataset: Path, shared_cache: str
) -> None:
    paths = sorted(dataset.rglob("*.mkv"))
    live, cached = predict(*paths), predict(*paths, cache=shared_cache)
    known = [record for record in cached if record["frames_encoded"] == 0]
    assert len(known) >= 16, "those of training and validation are in the cache"
    for one, other in zip(live, cached, strict=True):
        assert one["label"] == other["label"]
        assert one["glimpses"] == other["glimpses"]
        assert one["score"] == pytest.approx(other["score"], abs=TOLERANCE)
    alone = [predict(path, workers=1)[0] for path in paths[:3]]
    assert [record["glimpses"] for record in alone] == [record["glimpses"] for record in live[:3]]


def test_no_frame_is_asked_for_that_was_not_chosen(
    predict: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    original = OpenClips.read_at

    def hook(files: OpenClips, requests: Mapping[int, FrameRequest]) -> Any:
        asked.extend(request.only or () for request in requests.values())
        return original(files, requests)

    monkeypatch.setattr(OpenClips, "read_at", hook)
    records = predict(*sorted(dataset.rglob("*.mkv"))[:4])
    assert asked.count(()) == 4, "each is opened once"
    assert len(asked) - 4 == sum(record["frames_encoded"] for record in records)
    assert all(len(only) <= 1 for only in asked)


def test_inputs_that_fail(predict: Any, dataset: Path, tmp_path: Path) -> None:
    good, other = sorted(dataset.rglob("*.mkv"))[:2]
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    records = predict(good, text, tmp_path / "missing.mp4", other)
    assert [record["ok"] for record in records] == [True, False, False, True]
    assert all(list(record) == list(records[0]) for record in records)
    for record in records[1:3]:
        assert record["error"]
        assert [record[name] for name in SEEN] == [[], None, None]


def test_records_as_csv(
    predict: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(dataset.rglob("*.mkv"))
    records = map(Record.from_dict, predict(tmp_path / "missing.mp4", good))
    list(write_records(records, "csv"))
    failed, row = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [failed[name] for name in SEEN] == ["", "", ""]
    assert len(row["glimpses"].split("; ")) == int(row["frames_encoded"])


def test_evaluate_says_how_many_frames_it_took(
    policy: str, dataset: Path, shared_cache: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"model": policy, "subset": "val", "workers": 1}
    cached = vidfuse.evaluate(dataset, cache=shared_cache, **settings).to_dict()
    live = vidfuse.evaluate(dataset, cache=str(tmp_path), **settings).to_dict()
    assert cached["frames"]["candidates"] == 6
    assert 1 <= cached["frames"]["glimpses"] <= 3
    assert (cached["frames"]["encoded"], cached["frames"]["decoded"]) == (0, 0)
    assert live["frames"]["encoded"] == live["frames"]["glimpses"] == cached["frames"]["glimpses"]
    assert live["frames"]["decoded"] > live["frames"]["encoded"]
    assert live["accuracy"] == cached["accuracy"]
    trained = vidfuse.load_model(policy).metadata["validation"]
    assert cached["confusion_matrix"] == trained["confusion_matrix"]


def test_decode_processes_are_kept_for_the_whole_command(
    policy: str, dataset: Path, started: list[Child]
) -> None:
    inputs = [each for path in sorted(dataset.rglob("*.mkv"))[:3] for each in (path, None)]
    records = vidfuse.predict(inputs, model=policy, use_cache=False, workers=1)
    assert all(record.ok for record in records)
    assert len(started) == 1
    assert not started[0].alive()


def test_in_an_ensemble_what_was_seen_adds_up(
    policy: str, run: str, dataset: Path, tmp_path: Path
) -> None:
    path = next(dataset.rglob("*.mkv"))
    config: dict[str, Any] = {"cache": str(tmp_path), "workers": 1}
    (once,) = vidfuse.predict([path], model=policy, **config)
    (beside,) = vidfuse.predict([path], model=[policy, run], **config)
    (plain,) = vidfuse.predict([path], model=run, **config)
    assert [getattr(beside, name) for name in SEEN] == [getattr(once, name) for name in SEEN]
    assert beside.score != once.score
    assert not set(SEEN) & set(plain.to_dict())


def test_other_weights_see_other_frames(policy: str, dataset: Path, tmp_path: Path) -> None:
    """The frames are chosen by what is in them, not by rote."""
    import torch

    model: Model = replace(vidfuse.load_model(policy).model)
    head = model.head
    with torch.no_grad():
        torch.manual_seed(0)
        head.get_submodule("query").weight.normal_(std=2.0)  # type: ignore[operator]
    used = Ensemble([model], InferenceConfig(cache=str(tmp_path), workers=2), Reporter())
    paths = sorted(dataset.rglob("*.mkv"))
    records = used.predict([Clip(p) for p in paths])
    observed = set()
    for record in records:
        assert isinstance(record, Prediction)
        assert record.glimpses is not None
        observed.add(tuple(np.round(record.glimpses.times, 2).tolist()))
    assert len(observed) > 3
