"""Frames are chosen from the cache as prediction decodes them, and jitter stays in its part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import SPEC, close, entries, extractor

from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.features.cache import Entry, EntryInfo
from vidfuse.features.table import FeatureBuffer, Kind, build_table, collate
from vidfuse.training.examples import Examples, examples_of
from vidfuse.video.sampling import FrameTimes, Sampling

T = 4


def clip(count: int, *, kept: int = 3 * T, irregular: bool = False, start: float = 0.0) -> Entry:
    """What is cached of a clip of some frames: each feature holds its frame's index."""
    steps = np.ones(count)
    if irregular:
        steps = np.random.default_rng(count).uniform(0.2, 3.0, count)
    times = start + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    end = float(times[-1] + steps[-1])
    picks = Sampling.parse("uniform").pick(FrameTimes(times, end), kept)
    features = picks.astype(np.float16)[:, None, None, None]
    info = EntryInfo(float(times[0]), end, count, 48, 32, "pyav", "fp32", "a.mkv", [])
    return Entry(features, times[picks], info)


def side_by_side(cached: list[Entry], rule: str) -> Examples:
    """Examples of some clips, as training makes them."""
    entries: Iterator[tuple[Clip, Kind, Entry]]
    entries = ((Clip(Path(f"{n}.mkv")), "plain", entry) for n, entry in enumerate(cached))
    table = build_table(entries, Sampling.parse(rule), T, FeatureBuffer(len(cached)))
    rows = range(len(cached))
    return examples_of(table, rows, torch.zeros(len(cached), dtype=torch.int64))


def batch(
    examples: Examples, generator: torch.Generator | None = None, rows: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    index = torch.arange(len(examples)) if rows is None else torch.tensor(rows)
    return examples.batch(index, torch.device("cpu"), generator)


def indices(features: torch.Tensor) -> np.ndarray[Any, Any]:
    return features[..., 0, 0, 0].numpy()


COUNTS = [*range(1, 30), 100, 101]


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("start", [0.0, 7.3])
def test_fixed_picks_are_the_pictures_that_prediction_decodes(
    irregular: bool, start: float
) -> None:
    cached = [clip(count, irregular=irregular, start=start) for count in COUNTS]
    decoded = [clip(count, kept=T, irregular=irregular, start=start) for count in COUNTS]
    there: tuple[Any, ...] = collate(cached, Sampling.parse("segment"), T)
    here: tuple[Any, ...] = collate(decoded, Sampling.parse("segment"), T)
    for one, other in zip(there, here, strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(batch(side_by_side(cached, "segment")), there, strict=True):
        assert np.array_equal(one.numpy(), other), "training and prediction read the same frames"


def test_real_fixed_picks_are_those_of_a_fresh_extraction(make_clip: Any, tmp_path: Any) -> None:
    clips = [
        Clip(make_clip(f"{n}.mkv", seed=n, frames=n, fps=fps))
        for n, fps in ((3, 10), (9, 30), (12, 24), (29, 10), (50, 25))
    ]
    clips.append(Clip(clips[-1].path, start=0.33, end=1.5))
    three_times = entries(extractor(tmp_path, replace(SPEC, frames=3 * T)), clips)
    once = entries(extractor(tmp_path, replace(SPEC, frames=T)), clips)
    features, lengths = collate([three_times[c] for c in clips], Sampling.parse("segment"), T)
    for row, each in enumerate(clips):
        length = int(lengths[row])
        assert length == len(once[each].features)
        assert np.allclose(features[row, :length], once[each].features, rtol=2**-9, atol=2**-9)


@pytest.mark.parametrize("irregular", [False, True])
def test_jitter_stays_within_its_part(irregular: bool) -> None:
    counts = [5, 11, 12, 13, 24, 60, 61, 400]
    cached = [clip(count, irregular=irregular) for count in counts]
    examples = side_by_side(cached, "segment")
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(200):
        features, lengths = batch(examples, generator)
        assert lengths.tolist() == [T] * len(counts)
        drawn.append(indices(features))
    for row, (count, entry) in enumerate(zip(counts, cached, strict=True)):
        start, end = entry.info.start, entry.info.end
        picks = np.array(drawn)[:, row]
        assert (np.diff(picks, axis=1) >= 0).all()
        # A frame is shown during its part: from its own time to the next frame's.
        steps = np.ones(count)
        if irregular:
            steps = np.random.default_rng(count).uniform(0.2, 3.0, count)
        shown = np.concatenate([[0.0], np.cumsum(steps)])
        for part in range(T):
            low, high = (start + (part + k) * (end - start) / T for k in (0, 1))
            of_part = picks[:, part].astype(int)
            assert (shown[of_part] < high + 1e-6).all()
            assert (shown[of_part + 1] > low - 1e-6).all()
        if count >= 3 * T and not irregular:  # a long frame may be cached several times
            assert all(len(set(picks[:, part])) == 3 for part in range(T)), "not all are drawn"


def test_jitter_is_of_its_generator_alone() -> None:
    examples = side_by_side([clip(60), clip(400)], "segment")
    one, other = (batch(examples, torch.Generator().manual_seed(5), [1, 0])[0] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, batch(examples, torch.Generator().manual_seed(6), [1, 0])[0])


def test_uniform_does_not_jitter() -> None:
    examples = side_by_side([clip(60)], "uniform")
    assert torch.equal(batch(examples)[0], batch(examples, torch.Generator())[0])


def test_short_clips_are_padded_with_their_last_frame() -> None:
    examples = side_by_side([clip(2), clip(1), clip(60)], "segment")
    for generator in (None, torch.Generator()):
        features, lengths = batch(examples, generator)
        assert lengths.tolist() == [2, 1, T]
        assert indices(features)[:2].tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("rule", ["stride:2", "stride:5", "dense", "uniform"])
def test_what_decoding_chose_is_not_chosen_from_again(
    make_clip: Any, tmp_path: Any, rule: str
) -> None:
    each = Clip(make_clip(frames=30))
    found = entries(extractor(tmp_path, replace(SPEC, sampling=rule, frames=T)), [each])[each]
    features, lengths = collate([found], Sampling.parse(rule), T)
    assert lengths.tolist() == [T]
    assert close(replace(found, features=features[0]), found)


def test_different_shapes_are_refused() -> None:
    other = replace(clip(5), features=np.zeros((5, 1, 2, 2), np.float16))
    with pytest.raises(UserError, match="different shapes"):
        collate([clip(5), other], Sampling.parse("uniform"), T)
    with pytest.raises(UserError, match="different shapes"):
        side_by_side([clip(5), other], "uniform")
