"""The same clip gives the same prediction alone, in a batch, padded, cached and freshly decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidfuse
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.features.table import collate
from vidfuse.inference.config import InferenceConfig
from vidfuse.inference.predictor import Ensemble
from vidfuse.progress import Reporter
from vidfuse.video.sampling import Sampling

# Features are float16 with and without the cache, so both ways begin with the same numbers. What
# remains: matrix products over other batches add float32 numbers in another order, and a feature
# that lies between two float16 numbers may then fall to either side (2^-11 of its size). Measured
# on an x86-64 CPU, probabilities moved by 8e-6 at most; other processors add in other orders.
TOLERANCE = 1e-4
RULES = [
    ("uniform", "made"),
    ("stride:3", "made"),
    ("dense", "made"),
    ("uniform", "real"),
    ("segment", "real"),
]


def real_clips(folder: Path, count: int) -> list[Path]:
    """Real clips of several sizes, lengths, codecs and rates."""
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".avi", ".mp4", ".webm") and path.stat().st_size < 2_000_000
    ]
    return paths[:: max(1, len(paths) // count)][:count]


@pytest.fixture
def clips(source: str, reference_data: Callable[[str], Path], make_clip: Any) -> list[Path]:
    made = [make_clip(f"{n}.mkv", seed=n, frames=n) for n in (1, 2, 5, 9, 40)]
    if source == "made":
        return made
    folders = ("ut_interaction", 3), ("fight_surv", 2), ("real_clips", 3)
    return [*made, *(path for name, n in folders for path in real_clips(reference_data(name), n))]


@pytest.fixture
def model(train: Any, dataset: Path, rule: str) -> str:
    return str(train(dataset, sampling=rule, frames=6, epochs=8, head_options={"hidden": 16}))


def inference(model: str, **settings: Any) -> Ensemble:
    config = InferenceConfig(workers=1, **settings)
    return Ensemble([vidfuse.load_model(model).model], config, Reporter())


def answers(used: Ensemble, clips: list[Path]) -> np.ndarray[Any, Any]:
    rows = []
    for answer in used.predict([Clip(path) for path in clips]):
        assert not isinstance(answer, InputError), answer
        rows.append(answer[0])
    return np.stack(rows)


@pytest.mark.parametrize(("rule", "source"), RULES)
def test_the_same_clip_gives_the_same_prediction(
    model: str, clips: list[Path], tmp_path: Path
) -> None:
    cache = str(tmp_path / "cache")
    together = answers(inference(model, use_cache=False), clips)
    assert len(np.unique(together.round(3), axis=0)) > len(clips) // 2, "all answers are alike"

    used = inference(model, use_cache=False)
    alone = np.concatenate([answers(used, [path]) for path in clips])
    backwards = answers(inference(model, use_cache=False), clips[::-1])[::-1]
    filling = answers(inference(model, cache=cache), clips)
    cached_run = inference(model, cache=cache)
    cached = answers(cached_run, clips)
    assert (
        cached_run.members[0].extractor.stats.computed,
        cached_run.members[0].extractor.stats.reused,
    ) == (
        0,
        len(clips),
    )
    for what, other in (
        ("alone", alone),
        ("in another order", backwards),
        ("while the cache is filled", filling),
        ("from the cache", cached),
    ):
        assert np.abs(other - together).max() <= TOLERANCE, what
    assert np.array_equal(filling, cached), "the cache holds what was computed"


@pytest.mark.parametrize(("rule", "source"), RULES)
def test_padding_changes_nothing(model: str, clips: list[Path]) -> None:
    used = inference(model, use_cache=False)
    expected = answers(used, clips)
    found = dict(used.members[0].extractor.run([Clip(path) for path in clips]))
    entries = [found[Clip(path)] for path in clips]
    sampling = Sampling.parse(used.models[0].sampling)
    batch = collate(entries, sampling, used.models[0].spec.frames)  # type: ignore[arg-type]
    features, lengths = map(torch.from_numpy, batch)
    rubbish = torch.full((len(entries), 3, *features.shape[2:]), float("nan"))
    with torch.inference_mode():
        logits = used.members[0].model.head(torch.cat([features.float(), rubbish], 1), lengths)
    assert np.abs(logits.softmax(-1).numpy() - expected).max() <= TOLERANCE


@pytest.mark.parametrize("rule", ["uniform", "segment", "stride:3", "dense"])
def test_training_sees_what_prediction_sees(
    train: Any, manifest: Path, shared_cache: str, rule: str
) -> None:
    """Validation in training and evaluation of the model file agree on every clip."""
    run = train(manifest, sampling=rule, frames=3, epochs=3, refit=False)
    trained = vidfuse.load_model(run).metadata["validation"]
    for cache in (True, False):
        measured = vidfuse.evaluate(
            manifest, model=run, subset="val", cache=shared_cache, use_cache=cache, workers=1
        )
        assert measured.confusion_matrix == trained["confusion_matrix"]
        assert measured.macro_f1 == pytest.approx(trained["macro_f1"])
