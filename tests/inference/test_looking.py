"""A model that chooses its frames, from the cache and live."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidfuse
from vidfuse.cli.output import write_records
from vidfuse.data.clip import Clip
from vidfuse.evaluation.inference import Inference, InferenceConfig
from vidfuse.features.live import LiveSource
from vidfuse.features.store import Store
from vidfuse.model import Model
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.video.process import DecodeProcess

SEEN = ["looks", "frames_encoded", "pictures_decoded"]
# Features of other batches may differ in their last bit of float16; see test_same_answer.py.
TOLERANCE = 1e-4
OPTIONS = {"hidden": 16, "max_looks": 3, "cost": 0.05}


@pytest.fixture(scope="module")
def policy(train: Any, dataset: Path) -> str:
    return str(train(dataset, head="policy", frames=6, head_options=OPTIONS, epochs=4))


@pytest.fixture
def predict(policy: str, tmp_path: Path) -> Any:
    """Predicts without a cache of its own."""

    def go(*inputs: Any, **settings: Any) -> list[dict[str, Any]]:
        options = {"model": policy, "cache": str(tmp_path / "cache"), "workers": 2}
        return list(vidfuse.predict(inputs, **{**options, **settings}))

    return go


def test_a_record_says_what_was_seen(predict: Any, dataset: Path, tmp_path: Path) -> None:
    paths = sorted(dataset.rglob("*.mkv"))[:5]
    records = predict(*paths)
    for path, record in zip(paths, records, strict=True):
        assert list(record)[-3:] == SEEN
        assert record["ok"], record["error"]
        assert 1 <= len(record["looks"]) == record["frames_encoded"] <= 3
        assert len(set(record["looks"])) == len(record["looks"])
        # These videos are short: decoded once, as a whole.
        seed = int(path.stem[1:])
        assert record["pictures_decoded"] == 6 + seed % 5
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
        assert one["looks"] == other["looks"]
        assert one["score"] == pytest.approx(other["score"], abs=TOLERANCE)
    alone = [predict(path, workers=1)[0] for path in paths[:3]]
    assert [record["looks"] for record in alone] == [record["looks"] for record in live[:3]]


def test_no_frame_is_asked_for_that_was_not_chosen(
    predict: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    original = LiveSource._read

    def hook(source: LiveSource, wanted: dict[int, tuple[int, ...]]) -> Any:
        asked.extend(wanted.values())
        return original(source, wanted)

    monkeypatch.setattr(LiveSource, "_read", hook)
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
    list(write_records(iter(predict(tmp_path / "missing.mp4", good)), "csv"))
    failed, row = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [failed[name] for name in SEEN] == ["", "", ""]
    assert len(row["looks"].split("; ")) == int(row["frames_encoded"])


def test_evaluate_says_how_many_frames_it_took(
    policy: str, dataset: Path, shared_cache: str, tmp_path: Path
) -> None:
    settings = {"model": policy, "subset": "val", "workers": 1}
    cached = vidfuse.evaluate(dataset, cache=shared_cache, **settings)
    live = vidfuse.evaluate(dataset, cache=str(tmp_path), **settings)
    assert cached["frames"]["candidates"] == 6
    assert 1 <= cached["frames"]["looked_at"] <= 3
    assert (cached["frames"]["encoded"], cached["frames"]["decoded"]) == (0, 0)
    assert live["frames"]["encoded"] == live["frames"]["looked_at"] == cached["frames"]["looked_at"]
    assert live["frames"]["decoded"] > live["frames"]["encoded"]
    assert live["accuracy"] == cached["accuracy"]
    trained = vidfuse.load_model(policy).facts["validation"]
    assert cached["confusion_matrix"] == trained["confusion_matrix"]


def test_decode_processes_are_kept_for_the_whole_command(
    policy: str, dataset: Path, started: list[DecodeProcess]
) -> None:
    inputs = [each for path in sorted(dataset.rglob("*.mkv"))[:3] for each in (path, None)]
    records = vidfuse.predict(inputs, model=policy, use_cache=False, workers=1)
    assert all(record["ok"] for record in records)
    assert len(started) == 1
    assert not started[0].alive()


def test_in_an_ensemble_what_was_seen_adds_up(
    policy: str, run: str, dataset: Path, tmp_path: Path
) -> None:
    path = next(dataset.rglob("*.mkv"))
    config = {"cache": str(tmp_path), "workers": 1}
    (once,) = vidfuse.predict([path], model=policy, **config)
    (beside,) = vidfuse.predict([path], model=[policy, run], **config)
    (plain,) = vidfuse.predict([path], model=run, **config)
    assert [beside[name] for name in SEEN] == [once[name] for name in SEEN]
    assert beside["score"] != once["score"]
    assert not set(SEEN) & set(plain)


def test_other_weights_see_other_frames(policy: str, dataset: Path, tmp_path: Path) -> None:
    """The frames are chosen by what is in them, not by rote."""
    import torch

    model: Model = replace(vidfuse.load_model(policy))
    head = model.head
    with torch.no_grad():
        torch.manual_seed(0)
        head.get_submodule("query").weight.normal_(std=2.0)  # type: ignore[operator, union-attr]
    used = Inference(
        [model], InferenceConfig(cache=str(tmp_path), workers=2), Progress(), Timings()
    )
    paths = sorted(dataset.rglob("*.mkv"))
    records = [answer for _, answer in used.run([Clip(p) for p in paths])]
    shares = [np.round(each.looks.times, 2).tolist() for each in records]
    assert len({tuple(row) for row in shares}) > 3
