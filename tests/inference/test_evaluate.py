"""What a model is measured on, and that clips it has seen are never passed off as new."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heard import Heard

import vidfuse
from vidfuse.data.content import content_hash
from vidfuse.errors import UserError
from vidfuse.model import Model

KEYS = {
    *("accuracy", "top5_accuracy", "macro_precision", "macro_recall", "macro_f1"),
    *("accuracy_interval", "interval_method", "per_class", "confusion_matrix"),
    *("split", "protocol", "clips", "failed"),
}


@pytest.fixture
def evaluate(run: str, shared_cache: str) -> Callable[..., dict[str, Any]]:
    def measure(dataset: Path, **settings: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"model": run, "cache": shared_cache, "workers": 1}
        return vidfuse.evaluate(dataset, **{**options, **settings}).to_dict()

    return measure


def test_the_report(evaluate: Any, dataset: Path) -> None:
    report = evaluate(dataset)
    assert report.keys() >= KEYS
    json.dumps(report)
    assert (report["clips"], report["failed"], report["in_training"]) == (3, 0, 0)
    assert report["top5_accuracy"] is None
    assert report["split"] == "clips that the model has not seen"
    assert "random" in report["protocol"]
    assert sum(map(sum, report["confusion_matrix"])) == 3
    assert {"cache", "decode", "forward", "total"} <= set(report["timings"])


@pytest.mark.parametrize(("subset", "clips"), [("train", 18), ("val", 3), ("test", 3), ("all", 24)])
def test_subsets(evaluate: Any, train: Any, dataset: Path, subset: str, clips: int) -> None:
    heard = Heard()
    model = train(dataset, refit=False)
    report = evaluate(dataset, model=model, subset=subset, reporter=heard)
    assert report["clips"] == clips
    assert report["in_training"] == {"train": 18, "val": 3, "test": 0, "all": 21}[subset]
    assert report["warnings"] == heard.warnings
    assert bool(report["warnings"]) is (subset in ("val", "all"))


def test_a_refitted_model_has_learned_from_its_validation_clips(
    evaluate: Any, dataset: Path
) -> None:
    assert evaluate(dataset, subset="train")["clips"] == 21
    assert evaluate(dataset, subset="test")["clips"] == 3
    with pytest.raises(UserError, match="no validation clips: it learned from them") as error:
        evaluate(dataset, subset="val")
    assert "--no-refit" in str(error.value.hint)


def test_seen_clips_are_known_under_any_name(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    for i, path in enumerate(sorted(dataset.rglob("*.mkv"), key=content_hash)):
        target = renamed / path.parent.name / f"other name {i}.mkv"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    report = evaluate(renamed)
    assert (report["clips"], report["in_training"]) == (3, 0)
    assert evaluate(renamed, subset="train")["clips"] == 21


def test_nothing_unseen_is_an_error(evaluate: Any, dataset: Path, run: str, tmp_path: Path) -> None:
    model = vidfuse.load_model(run)
    for path in dataset.rglob("*.mkv"):
        if model.in_training(content_hash(path)):
            target = tmp_path / "seen" / path.relative_to(dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    with pytest.raises(UserError, match="no clip to measure on") as error:
        evaluate(tmp_path / "seen")
    assert "--subset" in str(error.value.hint)


def test_a_declared_test_part(train: Any, manifest: Path, evaluate: Any) -> None:
    model = train(manifest)
    for subset, clips, seen in (("auto", 6, 0), ("test", 6, 0), ("val", 6, 6), ("train", 12, 12)):
        report = evaluate(manifest, model=model, subset=subset)
        assert (report["clips"], report["in_training"]) == (clips, seen), subset


def test_a_split_of_its_own_overrules_the_declared_one(
    train: Any, manifest: Path, evaluate: Any
) -> None:
    model = train(manifest, split="group")
    report = evaluate(manifest, model=model)
    assert report["in_training"] == 0
    assert report["split"] == "clips that the model has not seen"


def test_a_declared_part_that_training_could_not_use(
    train: Any, dataset: Path, evaluate: Any, tmp_path: Path
) -> None:
    """All clips are declared as test: training makes a split, and evaluation respects it."""
    path = tmp_path / "manifest.csv"
    rows = [f"{clip},{clip.parent.name},test" for clip in sorted(dataset.rglob("*.mkv"))]
    path.write_text("\n".join(["path,label,split", *rows]))
    report = evaluate(path, model=train(path))
    assert (report["clips"], report["in_training"]) == (3, 0)
    everything = evaluate(path, model=train(path), subset="test")
    assert (everything["clips"], everything["in_training"]) == (24, 21)
    assert any("21 of these clips were used in training" in w for w in everything["warnings"])


def test_a_leak_in_the_declared_split_is_told(
    train: Any, manifest: Path, evaluate: Any, tmp_path: Path
) -> None:
    rows = manifest.read_text().splitlines()
    trained, tested = (next(row for row in rows if row.endswith(end)) for end in ("train", "test"))
    copied = shutil.copy(trained.split(",")[0], tmp_path / "copy.mkv")
    leaky = tmp_path / "manifest.csv"
    leaky.write_text("\n".join([*rows, ",".join([str(copied), *tested.split(",")[1:]])]))
    heard = Heard()
    report = evaluate(leaky, model=train(leaky), reporter=heard)
    assert (report["clips"], report["in_training"]) == (7, 1)
    assert any("1 of these clips" in warning for warning in heard.warnings)


def test_classes_that_the_model_does_not_know(
    evaluate: Any, dataset: Path, tmp_path: Path, make_clip: Any
) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "dance").mkdir()
    for seed in range(2):
        shutil.copy(make_clip(f"{seed}.mkv", seed=50 + seed), data / "dance" / f"{seed}.mkv")
    report = evaluate(data)
    assert report["clips"] == 3
    assert report["classes"] == ["class0", "class1", "class2"]
    assert any("2 clips of classes" in w and "dance" in w for w in report["warnings"])
    shutil.rmtree(data / "class0")
    shutil.rmtree(data / "class1")
    shutil.rmtree(data / "class2")
    (data / "fall").mkdir()
    shutil.copy(make_clip("9.mkv", seed=60), data / "fall" / "9.mkv")
    with pytest.raises(UserError, match="no clip to measure on"):
        evaluate(data)


def test_classes_go_by_name(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    """A dataset with fewer classes, in which indices differ."""
    data = shutil.copytree(dataset, tmp_path / "data")
    shutil.rmtree(data / "class0")
    report = evaluate(data, subset="all")
    assert [row["support"] for row in report["per_class"]] == [0, 8, 8]
    whole = evaluate(dataset, subset="all")["confusion_matrix"]
    assert report["confusion_matrix"][1:] == whole[1:]


def test_failing_clips_are_left_out_and_told(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    torn = data / "class0" / "torn.mkv"
    torn.write_bytes((data / "class0" / "v00.mkv").read_bytes()[:80])
    heard = Heard()
    report = evaluate(data, reporter=heard)
    assert (report["clips"], report["failed"]) == (3, 1)
    assert report["failures"][0]["path"] == str(torn)
    assert any(str(torn) in warning for warning in heard.warnings)


def test_a_training_clip_that_cannot_be_read_is_none_to_test_on(
    evaluate: Any, train: Any, dataset: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    for number in range(3):
        torn = data / f"class{number}" / "torn.mkv"
        torn.write_bytes((data / f"class{number}" / f"v0{number}.mkv").read_bytes()[: 90 + number])
    model = train(data, max_failed=0.5, reporter=(heard := Heard()))
    trained = [line for line in heard.warnings if "torn.mkv" in line]
    assert trained, "most clips are trained on"
    report = evaluate(data, model=model)
    assert len(trained) + report["failed"] == 3
    assert report["in_training"] == 0


def test_features_are_held_for_a_few_clips_at_a_time(
    evaluate: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(dataset, subset="all")
    sizes: list[int] = []
    original = Model.probabilities

    def hook(model: Any, features: Any, lengths: Any, device: Any) -> Any:
        sizes.append(len(features))
        return original(model, features, lengths, device)

    monkeypatch.setattr(Model, "probabilities", hook)
    monkeypatch.setattr("vidfuse.inference.predictor.BATCH", 5)
    report = evaluate(dataset, subset="all")
    assert sizes == [5, 5, 5, 5, 4]
    assert report["confusion_matrix"] == expected["confusion_matrix"]


def test_all_clips_of_another_dataset_are_no_cause_for_warning(
    evaluate: Any, dataset: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    for path in data.rglob("*.mkv"):
        path.write_bytes(path.read_bytes() + b"\0")
    report = evaluate(data, subset="all")
    assert (report["clips"], report["in_training"], report["warnings"]) == (24, 0, [])
