"""Cross-validation from a dataset to a model fitted on everything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heard import Heard
from safetensors.torch import load_file

import vidfuse
import vidfuse.training.fit  # before a stand-in for `predict` is there for it to import
from vidfuse.data.content import content_hash
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import EntryInfo
from vidfuse.features.table import FeatureTable
from vidfuse.runs import latest_run
from vidfuse.training import examples
from vidfuse.training import folds as folds_module
from vidfuse.training.baselines import geometry, majority
from vidfuse.training.examples import Examples, predict
from vidfuse.training.steps import new_fit

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
QUICK: dict[str, Any] = {**CHEAP, "epochs": 2, "workers": 1, "head": "mean"}
REPORTED = {"accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval"}


def cross(dataset: Path, cache: str, folds: int, **settings: Any) -> dict[str, Any]:
    return vidfuse.train(dataset, folds=folds, **{**QUICK, "cache": cache, **settings}).to_dict()


def write_manifest(path: Path, rows: list[tuple[Any, ...]], columns: str) -> Path:
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]))
    return path


@pytest.fixture
def grouped(dataset: Path, tmp_path: Path) -> Path:
    """Eight groups with a clip of each class, and an official split that folds ignore."""
    clips = sorted(dataset.rglob("*.mkv"), key=lambda path: path.name)
    rows = [
        (path, path.parent.name, f"g{i // 3}", "test" if i < 6 else "train")
        for i, path in enumerate(clips)
    ]
    return write_manifest(tmp_path / "grouped.csv", rows, "path,label,group,split")


def test_every_clip_is_tested_once_by_a_model_that_has_not_seen_its_group(
    grouped: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[dict[str, list[Any]]] = []
    tested: list[list[Any]] = []
    owners: dict[int, Any] = {}  # the clip that a frame of the table belongs to

    def fit_hook(config: Any, table: FeatureTable, parts: Any, *rest: Any, **more: Any) -> Any:
        trained.append({part: list(clips) for part, clips in parts.items()})
        for clip, row in table.rows.items():
            for frame in range(table.lengths[row]):
                owners[int(table.firsts[row]) + frame] = clip
        return new_fit(config, table, parts, *rest, **more)

    def test_hook(head: Any, asked: Examples, **more: Any) -> Any:
        tested.append([owners[frame] for frame in asked.frames[:, 0].tolist()])
        return predict(head, asked, **more)

    monkeypatch.setattr(folds_module, "new_fit", fit_hook)
    monkeypatch.setattr(examples, "predict", test_hook)
    report = cross(grouped, shared_cache, 4)
    *outer, final = trained
    outer, refits = outer[::2], outer[1::2]
    for parts, again in zip(outer, refits, strict=True):
        assert again == {"train": parts["train"] + parts["val"], "val": []}
    assert len(outer) == len(tested) == len(report["folds"]) == 4
    together = [clip for clips in tested for clip in clips]
    assert len(together) == len(set(together)) == 24
    for parts, test, row in zip(outer, tested, report["folds"], strict=True):
        train, val, out = (
            {clip.group for clip in clips} for clips in (parts["train"], parts["val"], test)
        )
        assert train
        assert val
        assert out
        assert not (train | val) & out
        assert not train & val
        sizes = (row["train"], row["val"], row["clips"])
        assert sizes == (len(parts["train"]), len(parts["val"]), len(test))
        assert row["groups"] == sorted(out)
    assert len(final["train"]) == 24
    assert final["val"] == []


def test_the_report_is_the_measurement_of_all_folds(grouped: Path, shared_cache: str) -> None:
    report = cross(grouped, shared_cache, 4, epochs=8, lr=1e-2)
    json.dumps(report)
    assert report.keys() >= {*REPORTED, "interval_method", "folds", "baselines", "epochs", "clips"}
    assert (report["clips"], report["failed"]) == (24, 0)
    assert "8 groups" in report["interval_method"]
    assert np.sum(report["confusion_matrix"]) == 24
    rows = report["folds"]
    assert [row["fold"] for row in rows] == [1, 2, 3, 4]
    right = sum(row["accuracy"] * row["clips"] for row in rows)
    assert report["accuracy"] == pytest.approx(right / 24)
    low, high = report["accuracy_interval"]
    assert low <= report["accuracy"] <= high
    best = sorted(row["best_epoch"] for row in rows)
    assert report["epochs"] == max(1, round((best[1] + best[2]) / 2))
    lines = (Path(report["run"]) / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert {epoch["fold"] for epoch in epochs} == {0, 1, 2, 3, 4}
    assert [e["epoch"] for e in epochs if e["fold"] == 0][-1] == report["epochs"]
    assert not list(Path(report["run"]).glob("state*"))


def test_it_is_repeatable(grouped: Path, shared_cache: str) -> None:
    one, other = (cross(grouped, shared_cache, 3) for _ in range(2))
    for name in ("folds", "baselines", "confusion_matrix", "accuracy_interval", "epochs"):
        assert one[name] == other[name]
    tensors = [load_file(each["model"]) for each in (one, other)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert cross(grouped, shared_cache, 3, seed=5)["folds"] != one["folds"]


def test_baselines_by_hand(make_clip: Any, tmp_path: Path, shared_cache: str) -> None:
    """Three groups of two clips of 6 frames (a) and one of 9 (b), which is of 7 in one group.

    Always a: 6 of 9 right; F1 is 2*6/(6+9) = 0.8 for a, and 0 for b. By geometry all are right
    but the b of 7 frames, which is nearer to 6 than to 9: F1 is 12/13 for a, and 4/5 for b.
    """
    rows = []
    for g, odd in enumerate((9, 9, 7)):
        for take, (label, frames) in enumerate((("a", 6), ("a", 6), ("b", odd))):
            clip = make_clip(f"{g}{take}.mkv", seed=10 * g + take, frames=frames)
            rows.append((clip, label, f"g{g}"))
    manifest = write_manifest(tmp_path / "manifest.csv", rows, "path,label,group")
    report = cross(manifest, shared_cache, 3)
    baselines = report["baselines"]
    assert {name: set(each) for name, each in baselines.items()} == {
        "majority": REPORTED,
        "geometry": REPORTED,
    }
    assert baselines["majority"]["accuracy"] == pytest.approx(6 / 9)
    assert baselines["majority"]["macro_f1"] == pytest.approx(0.4)
    assert baselines["geometry"]["accuracy"] == pytest.approx(8 / 9)
    assert baselines["geometry"]["macro_f1"] == pytest.approx((12 / 13 + 4 / 5) / 2)


def info(width: int, height: int, count: int) -> EntryInfo:
    return EntryInfo(0.0, 1.0, count, width, height, "pyav", "fp32", "clip.mkv", [])


def test_a_baseline_knows_nothing_of_the_held_clips() -> None:
    labels = np.array([0, 1, 1, 1, 1])
    known = np.array([True, True, False, False, True])
    assert majority(labels, known, 2).tolist() == [[0, 1], [0, 1]]
    known = np.array([True, False, False, False, False])
    assert majority(labels, known, 2).tolist() == [[1, 0]] * 4


def test_each_measure_of_geometry_counts_by_its_spread() -> None:
    known = np.array([True, True, False])
    labels = np.array([0, 1, 0])
    # In pixels nearer to the first; of the range, 8/10 in frames outweigh 6/10 in width.
    shapes = [info(100, 50, 10), info(200, 50, 20), info(140, 50, 18)]
    assert geometry(shapes, labels, known, 2).tolist() == [[0, 1]]
    shapes = [info(100, 50, 10), info(200, 50, 20), info(110, 50, 14)]
    assert geometry(shapes, labels, known, 2).tolist() == [[1, 0]]


def test_the_model_is_fitted_on_all_clips_and_says_how_it_was_measured(
    grouped: Path, dataset: Path, shared_cache: str
) -> None:
    report = cross(grouped, shared_cache, 4)
    run = latest_run()
    assert run is not None
    assert str(run) == report["run"]
    model = vidfuse.load_model(run)
    assert {part: len(hashes) for part, hashes in model.seen.items()} == {"train": 24, "val": 0}
    assert all(model.in_training(content_hash(path)) for path in dataset.rglob("*.mkv"))
    measured = model.metadata["cross_validation"]
    assert measured["folds"] == 4
    for name in (*REPORTED, "interval_method", "baselines"):
        assert measured[name] == report[name]
    assert "validation" not in model.metadata
    assert "fitted on all clips" in model.metadata["protocol"]

    # Its official test part was trained on: no number may pass it off as unseen.
    settings: dict[str, Any] = {"cache": shared_cache, "workers": 1}
    with pytest.raises(UserError, match="no clip to measure on") as error:
        vidfuse.evaluate(grouped, **settings)
    assert "--subset" in str(error.value.hint)
    with pytest.raises(UserError, match="no clip to measure on"):
        vidfuse.evaluate(grouped, subset="test", **settings)
    heard = Heard()
    seen = vidfuse.evaluate(grouped, subset="all", reporter=heard, **settings)
    assert (seen.clips, seen.in_training) == (24, 24)
    assert any("24 of these clips were used in training" in line for line in heard.warnings)
    (record,) = vidfuse.predict([next(dataset.rglob("*.mkv"))], **settings)
    assert record.ok


def test_failing_clips_within_the_limit(dataset: Path, tmp_path: Path, shared_cache: str) -> None:
    """With as many folds as clips, the fold of a torn clip has nothing to test."""
    data = shutil.copytree(dataset, tmp_path / "data")
    torn = data / "class0" / "v00.mkv"
    torn.write_bytes(torn.read_bytes()[:80])
    with pytest.raises(InputError, match="1 of 24 clips"):
        cross(data, shared_cache, 24, max_failed=0.0)
    assert not Path("runs").exists()
    heard = Heard()
    report = cross(data, shared_cache, 24, epochs=1, reporter=heard)
    assert (report["clips"], report["failed"], len(report["folds"])) == (23, 1, 23)
    assert all(row["train"] + row["val"] == 22 for row in report["folds"])
    assert [failure["path"] for failure in report["failures"]] == [str(torn)]
    (line,) = (Path(report["run"]) / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == report["failures"][0]
    assert any("has no clip that can be read" in line for line in report["warnings"])
    assert any("similar clips" in line for line in report["warnings"])
    assert set(report["warnings"]) <= set(heard.warnings)


def test_the_same_content_is_in_one_fold(dataset: Path, tmp_path: Path, shared_cache: str) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    for label in range(3):
        original = sorted((data / f"class{label}").iterdir())[0]
        for copy in range(4):
            shutil.copy(original, original.with_name(f"copy{copy}.mkv"))
    report = cross(data, shared_cache, 4)
    assert "(24 video files)" in report["protocol"], "36 with 4 copies of each of 3"


def test_a_mirrored_view_is_trained_on_and_never_tested(grouped: Path, shared_cache: str) -> None:
    report = cross(grouped, shared_cache, 4, mirror=True, epochs=1)
    assert (report["clips"], report["computed"] + report["reused"]) == (24, 48)
    assert np.sum(report["confusion_matrix"]) == 24


def test_errors_come_before_any_work(
    grouped: Path, shared_cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    report = cross(grouped, shared_cache, 2, epochs=1, out=str(out))
    before = Path(report["model"]).read_bytes()
    monkeypatch.setattr("vidfuse.features.extract.Extractor.run", None)
    for settings, message in (
        ({"folds": 9}, "8 groups cannot make 9 folds"),
        ({"folds": 2, "split": "1"}, "exclude each other"),
        ({"folds": 2, "split": "gruop"}, "unknown split"),
        ({"folds": 2, "out": str(out)}, "already holds a model"),
    ):
        with pytest.raises(UserError, match=message):
            cross(grouped, shared_cache, **settings)
    assert Path(report["model"]).read_bytes() == before
    with pytest.raises(UserError, match="without folds"):
        vidfuse.train(resume=out, folds=2)
