"""Several models whose probabilities are averaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import Heard

import vidfuse
from vidfuse.data.content import content_hash
from vidfuse.errors import UserError
from vidfuse.model import Model, load_model

Scores = dict[str, dict[str, float]]


@pytest.fixture
def clips(dataset: Path) -> list[Path]:
    return sorted(dataset.rglob("*.mkv"))[::3]


@pytest.fixture
def scores(shared_cache: str, clips: list[Path]) -> Callable[..., Scores]:
    """Probability of each class for each clip."""

    def predict(*models: str | Path, **settings: Any) -> Scores:
        options: dict[str, Any] = {"cache": shared_cache, "workers": 1, "top": 3, **settings}
        named = models[0] if len(models) == 1 else list(models)
        return {
            record.path: {each.label: each.score for each in record.top}
            for record in vidfuse.predict(clips, model=named, **options)
        }

    return predict


@pytest.fixture(scope="session")
def other(train: Any, dataset: Path) -> str:
    """A model of other features: another head, grid, number of frames, size and sampling."""
    changes = {"head": "mean", "grid": "1", "frames": 3, "size": 40, "sampling": "segment"}
    return str(train(dataset, seed=1, split="random", epochs=8, lr=1e-2, **changes))


def altered(source: str | Path, target: Path, change: Callable[[Model], None]) -> Path:
    """A copy of a model, with something changed."""
    model = load_model(source)
    change(model)
    target.mkdir(parents=True)
    model.save(target / "model.safetensors")
    return target


def reorder(model: Model) -> None:
    """The same model with its classes the other way round."""
    model.classes.reverse()
    last: Any = [m for m in model.head.modules() if getattr(m, "out_features", 0) == 3][-1]
    last.weight.data = last.weight.data.flip(0)
    last.bias.data = last.bias.data.flip(0)


def mean(one: Scores, two: Scores) -> Scores:
    return {
        path: {label: (score + two[path][label]) / 2 for label, score in row.items()}
        for path, row in one.items()
    }


def agree(one: Scores, two: Scores) -> None:
    assert one.keys() == two.keys()
    for path, row in one.items():
        assert row == pytest.approx(two[path], abs=1e-4), path  # other batches, other rounding


def test_models_of_different_features_are_averaged(run: str, other: str, scores: Any) -> None:
    one, two, both = scores(run), scores(other), scores(run, other)
    agree(both, mean(one, two))
    assert one != two
    agree(scores(other, run), both)
    agree(scores(run, other, use_cache=False), both)
    for row in both.values():
        assert sum(row.values()) == pytest.approx(1, abs=5e-6)
        assert list(row.values()) == sorted(row.values(), reverse=True)


def test_one_model_twice_and_one_in_a_list(run: str, scores: Any) -> None:
    agree(scores(run, run), scores(run))


def test_classes_go_by_name_in_whatever_order(
    run: str, other: str, scores: Any, tmp_path: Path
) -> None:
    turned = altered(other, tmp_path / "turned", reorder)
    assert load_model(turned).classes == ["class2", "class1", "class0"]
    agree(scores(turned), scores(other))
    agree(scores(run, turned), scores(run, other))
    agree(scores(turned, run), scores(run, other))


def test_three_models_weigh_the_same(run: str, other: str, scores: Any) -> None:
    one, two, all_three = scores(run), scores(other), scores(run, other, other)
    for path, row in all_three.items():
        for label, score in row.items():
            expected = (one[path][label] + 2 * two[path][label]) / 3
            assert score == pytest.approx(expected, abs=1e-4)


def test_other_classes_are_an_error(run: str, scores: Any, tmp_path: Path) -> None:
    def rename(model: Model) -> None:
        model.classes[2] = "dance"

    other = altered(run, tmp_path / "other", rename)
    with pytest.raises(UserError, match="know different classes: class2, dance") as error:
        scores(run, other)
    assert str(other) in error.value.message
    assert str(run) in error.value.message


def test_a_missing_model_is_an_error(run: str, scores: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model"):
        scores(run, tmp_path / "nothing")


def test_an_unreadable_clip_is_one_record(
    run: str, other: str, clips: list[Path], tmp_path: Path, shared_cache: str
) -> None:
    torn = tmp_path / "torn.mkv"
    torn.write_bytes(clips[0].read_bytes()[:80])
    inputs = [clips[0], torn, tmp_path / "missing.mkv", clips[1]]
    records = list(vidfuse.predict(inputs, model=[run, other], cache=shared_cache, workers=1))
    assert [record.path for record in records] == list(map(str, inputs))
    assert [record.ok for record in records] == [True, False, False, True]
    assert records[2].error == "no such file or folder"


def test_a_clip_that_only_one_member_can_use(
    run: str, other: str, clips: list[Path], shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one member cannot answer is a failure, and the other clips keep their places."""
    from vidfuse.errors import InputError
    from vidfuse.inference.predictor import Predictor

    original = Predictor.predict

    def hook(member: Predictor, wanted: Any) -> Any:
        answers = original(member, wanted)
        if member.model.head.name == "mean":
            answers[1] = InputError(clips[1], "too difficult")
        return answers

    monkeypatch.setattr(Predictor, "predict", hook)
    options: dict[str, Any] = {"cache": shared_cache, "workers": 1}
    records = list(vidfuse.predict(clips[:3], model=[run, other], **options))
    assert [record.ok for record in records] == [True, False, True]
    assert records[1].error == "too difficult"


def test_warnings_of_a_clip_are_told_once(
    run: str, other: str, clips: list[Path], shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidfuse.inference.predictor import Predictor

    original = Predictor.predict

    def hook(member: Predictor, wanted: Any) -> Any:
        told = ["damaged", f"only for {member.model.head.name}"]
        return [answer._replace(warnings=told) for answer in original(member, wanted)]  # type: ignore[union-attr]

    monkeypatch.setattr(Predictor, "predict", hook)
    options: dict[str, Any] = {"cache": shared_cache, "workers": 1}
    (record,) = vidfuse.predict(clips[:1], model=[run, other], **options)
    assert record.warnings == ["damaged", "only for lstm", "only for mean"]


class TestEvaluate:
    @pytest.fixture
    def evaluate(self, shared_cache: str) -> Callable[..., dict[str, Any]]:
        def measure(dataset: Path, *models: str | Path, **settings: Any) -> dict[str, Any]:
            options: dict[str, Any] = {"model": list(models), "cache": shared_cache, "workers": 1}
            return vidfuse.evaluate(dataset, **{**options, **settings}).to_dict()

        return measure

    def test_the_numbers_are_those_of_the_averages(
        self, evaluate: Any, run: str, other: str, dataset: Path, shared_cache: str
    ) -> None:
        report = evaluate(dataset, run, other, subset="all")
        paths = sorted(dataset.rglob("*.mkv"))
        options: dict[str, Any] = {"model": [run, other], "cache": shared_cache, "workers": 1}
        records = list(vidfuse.predict(paths, **options))
        right = [
            record.label == path.parent.name for path, record in zip(paths, records, strict=True)
        ]
        assert report["accuracy"] == pytest.approx(np.mean(right))
        assert report["model"] == f"{run}/model.safetensors, {other}/model.safetensors"

    def test_unseen_means_unseen_by_all(
        self, evaluate: Any, run: str, other: str, dataset: Path
    ) -> None:
        models = [load_model(run), load_model(other)]
        hashes = [content_hash(path) for path in dataset.rglob("*.mkv")]
        unseen = [
            {digest for digest in hashes if not model.in_training(digest)} for model in models
        ]
        assert len(unseen[0]) == len(unseen[1]) == 3
        assert unseen[0] != unseen[1], "the two seeds must divide the clips differently"
        both = len(unseen[0] & unseen[1])
        if both:
            report = evaluate(dataset, run, other)
            assert (report["clips"], report["in_training"]) == (both, 0)
        else:
            with pytest.raises(UserError, match="no clip to measure on"):
                evaluate(dataset, run, other)
        report = evaluate(dataset, run, other, subset="all")
        assert (report["clips"], report["in_training"]) == (24, 24 - both)
        trained = {digest for model in models for digest in model.seen["train"]}
        assert evaluate(dataset, run, other, subset="train")["clips"] == len(trained)

    def test_clips_that_only_the_second_saw_are_seen(
        self, evaluate: Any, train: Any, run: str, dataset: Path, tmp_path: Path
    ) -> None:
        """Of the six clips of one model's own, three are known to the other."""
        model = load_model(run)
        paths = sorted(dataset.rglob("*.mkv"))
        unseen = [path for path in paths if not model.in_training(content_hash(path))]
        blank = altered(run, tmp_path / "blank", lambda model: model.seen.clear())
        assert evaluate(dataset, blank)["clips"] == 24
        for order in ((blank, run), (run, blank)):
            report = evaluate(dataset, *order)
            assert (report["clips"], report["in_training"]) == (len(unseen), 0)

    def test_a_split_of_one_member_s_own_overrules_the_declared_one(
        self, evaluate: Any, train: Any, manifest: Path
    ) -> None:
        official, own = train(manifest), train(manifest, split="group", seed=3)
        assert evaluate(manifest, official)["clips"] == 6
        for order in ((official, own), (own, official)):
            try:
                report = evaluate(manifest, *order)
            except UserError as error:
                assert "no clip to measure on" in error.message  # noqa: PT017
                continue
            assert report["in_training"] == 0
            assert report["split"] == "clips that the model has not seen"

    def test_a_leak_through_the_second_is_told(
        self, evaluate: Any, train: Any, manifest: Path, tmp_path: Path
    ) -> None:
        official = train(manifest)
        tested = {
            content_hash(Path(row.split(",")[0]))
            for row in manifest.read_text().splitlines()
            if row.endswith(",test")
        }

        def leak(model: Model) -> None:
            model.seen["train"] = [digest[:32] for digest in sorted(tested)[:2]]

        leaky = altered(official, tmp_path / "leaky", leak)
        heard = Heard()
        report = evaluate(manifest, official, leaky, reporter=heard)
        assert (report["clips"], report["in_training"]) == (6, 2)
        assert any("2 of these clips were used in training" in line for line in heard.warnings)

    def test_a_failing_clip(
        self, evaluate: Any, run: str, other: str, dataset: Path, tmp_path: Path
    ) -> None:
        data = shutil.copytree(dataset, tmp_path / "data")
        torn = data / "class0" / "torn.mkv"
        torn.write_bytes((data / "class0" / "v00.mkv").read_bytes()[:80])
        report = evaluate(data, run, other, subset="all")
        assert (report["clips"], report["failed"]) == (24, 1)
        assert [failure["path"] for failure in report["failures"]] == [str(torn)]
