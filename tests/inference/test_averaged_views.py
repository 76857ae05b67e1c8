"""Predictions averaged over a clip and random views of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidfuse
from vidfuse.data.clip import Clip
from vidfuse.data.content import content_hash
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import entry_key
from vidfuse.features.encode import Job
from vidfuse.features.extract import Extractor
from vidfuse.inference.config import InferenceConfig
from vidfuse.inference.predictor import Ensemble, Prediction, find_model
from vidfuse.progress import Reporter
from vidfuse.video.view import View

NEAR = 1e-5  # other batches, other rounding


@pytest.fixture
def clips(dataset: Path) -> list[Path]:
    return sorted(dataset.rglob("*.mkv"))[:6]


@pytest.fixture(scope="session")
def mirrored_run(train: Any, dataset: Path) -> str:
    return str(train(dataset, mirror=True))


def scores(clips: list[Path], *models: str, views: int, cache: str) -> np.ndarray:
    """Probabilities [N, C] as the function gives them, by name of the class."""
    records = vidfuse.predict(clips, model=list(models), views=views, cache=cache, workers=1, top=3)
    return np.array(
        [
            [each.score for each in sorted(record.top, key=lambda each: each.label)]
            for record in records
        ]
    )


def by_hand(clips: list[Path], run: str, cache: str, views: int, *, mirror: bool) -> np.ndarray:
    """The same from frames, features and a head that are called one after the other."""
    ensemble = Ensemble([find_model(run, Reporter())], InferenceConfig(cache=cache), Reporter())
    (member,) = ensemble.members
    spec, model = member.extractor.spec, member.model
    rows = []
    for path in clips:
        key = entry_key(content_hash(path), Clip(path))
        parts = []
        for number in range(views + 1):
            view = View.draw(key, number) if number else None
            member.extractor.mirrored = mirror and view is not None and view.flip
            frames = ensemble.members[0].pool.submit(member.extractor.request(Clip(path), view))
            (features,) = member.extractor.encoder.engine.features(
                [frames.result().pixels], "fp32", [spec.grid]
            )
            lengths = np.array([len(features)])
            parts.append(model.probabilities(features[None], lengths, member.device)[0])
        rows.append(np.mean(parts, axis=0))
    ensemble.close()
    return np.array(rows)[:, np.argsort(ensemble.classes)]


@pytest.mark.parametrize("views", [1, 3])
def test_probabilities_are_averaged(
    run: str, clips: list[Path], shared_cache: str, views: int
) -> None:
    found = scores(clips, run, views=views, cache=shared_cache)
    assert found == pytest.approx(by_hand(clips, run, shared_cache, views, mirror=False), abs=NEAR)
    assert found.sum(1) == pytest.approx(np.ones(len(clips)), abs=NEAR)
    assert abs(found - scores(clips, run, views=0, cache=shared_cache)).max() > 1e-3


def test_views_are_mirrored_where_training_had_mirrored_ones(
    mirrored_run: str, clips: list[Path], shared_cache: str
) -> None:
    found = scores(clips, mirrored_run, views=2, cache=shared_cache)
    expected = by_hand(clips, mirrored_run, shared_cache, 2, mirror=True)
    assert found == pytest.approx(expected, abs=NEAR)
    unlike = by_hand(clips, mirrored_run, shared_cache, 2, mirror=False)
    assert abs(found - unlike).max() > 1e-4


def test_models_and_views_are_averaged_together(
    run: str, mirrored_run: str, clips: list[Path], shared_cache: str
) -> None:
    both = scores(clips, run, mirrored_run, views=2, cache=shared_cache)
    each = [scores(clips, one, views=2, cache=shared_cache) for one in (run, mirrored_run)]
    assert both == pytest.approx(np.mean(each, axis=0), abs=NEAR)


def test_without_a_cache_and_again_with_one(run: str, clips: list[Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": run, "workers": 1, "views": 2}
    one = list(vidfuse.predict(clips, use_cache=False, **options))
    for _ in range(2):
        two = list(vidfuse.predict(clips, cache=str(tmp_path), **options))
        assert [r.label for r in one] == [r.label for r in two]
        assert [r.score for r in one] == pytest.approx([r.score for r in two], abs=1e-4)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3 * len(clips)


def test_evaluation_measures_the_averages(run: str, dataset: Path, shared_cache: str) -> None:
    options: dict[str, Any] = {"model": run, "cache": shared_cache, "workers": 1, "views": 2}
    report = vidfuse.evaluate(dataset, subset="all", **options)
    paths = sorted(dataset.rglob("*.mkv"))
    right = [
        record.label == path.parent.name
        for path, record in zip(paths, vidfuse.predict(paths, **options), strict=True)
    ]
    assert report.clips == 24
    assert report.accuracy == pytest.approx(np.mean(right))


def test_a_clip_of_which_a_view_fails_is_an_error_and_not_asked_for_again(
    run: str, clips: list[Path], shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = Extractor.find

    def hook(extractor: Extractor, wanted: Any, **more: Any) -> Any:
        asked.append((extractor.view, [clip.path for clip in wanted]))
        for clip, found in original(extractor, wanted, **more):
            broken = (extractor.view, clip.path) in ((0, clips[0]), (1, clips[1]))
            yield clip, InputError(clip.path, "too difficult") if broken else found

    monkeypatch.setattr(Extractor, "find", hook)
    records = list(vidfuse.predict(clips[:3], model=run, cache=shared_cache, views=2, workers=1))
    assert [record.error for record in records] == ["too difficult", "too difficult", None]
    assert asked == [(0, clips[:3]), (1, clips[1:3]), (2, clips[2:3])]


def test_a_loaded_model_goes_back_to_the_plain_clip(
    run: str, clips: list[Path], shared_cache: str
) -> None:
    config = InferenceConfig(cache=shared_cache, views=1)
    ensemble = Ensemble([find_model(run, Reporter())], config, Reporter())
    items = [Clip(path) for path in clips]
    one, two = ensemble.predict(items), ensemble.predict(items)
    for before, after in zip(one, two, strict=True):
        assert isinstance(before, Prediction)
        assert isinstance(after, Prediction)
        assert np.array_equal(before.scores, after.scores)
    (member,) = ensemble.members
    assert (member.extractor.view, member.extractor.mirrored) == (0, False)
    assert not any(isinstance(found, Job) for _, found in member.extractor.find(items))
    ensemble.close()


def test_a_model_that_selects_its_frames_refuses(
    train: Any, dataset: Path, clips: list[Path], shared_cache: str
) -> None:
    policy = train(dataset, head="policy", head_options={"hidden": 8}, epochs=1, views=1)
    for call in (
        lambda: list(vidfuse.predict(clips, model=policy, cache=shared_cache, views=2)),
        lambda: vidfuse.evaluate(dataset, model=policy, cache=shared_cache, views=2),
        lambda: vidfuse.load_model(policy, cache=shared_cache, views=2).predict(clips[0]),
    ):
        with pytest.raises(UserError, match="'policy' selects its frames") as error:
            call()
        assert error.value.hint == "Leave out --views."
