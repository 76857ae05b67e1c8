"""Random views of a clip: entries of their own, and clips that change meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import SPEC, close, entries, extractor

from vidfuse.backbones import FP32
from vidfuse.data.clip import Clip
from vidfuse.data.content import content_hash
from vidfuse.errors import InputError
from vidfuse.features.cache import Entry, Store, entry_key
from vidfuse.features.table import FeatureBuffer, build_table
from vidfuse.video.frames import square
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import Sampling
from vidfuse.video.view import View

CLIP = Clip(Path("a.mkv"))
SEGMENT = Clip(Path("a.mkv"), start=1.0, end=2.0)


def test_keys_of_plain_and_mirrored_entries_are_what_they_were() -> None:
    assert entry_key("abc", CLIP) == "eb95443daa49e22ab783099e900c752a"
    assert entry_key("abc", CLIP, True) == "82034db187c8093090c8b90d92bb692f"
    assert entry_key("abc", SEGMENT) == "6d880af21c0f2dded4535aa18083f929"
    assert entry_key("abc", SEGMENT, True) == "eb3e037408edb0b437958e5cc5d6cf1a"


def test_each_view_has_its_own_key() -> None:
    views = [None, *(View.draw(entry_key("abc", CLIP), number) for number in (1, 2, 3))]
    keys = {
        entry_key("abc", clip, mirrored, view)
        for clip in (CLIP, SEGMENT)
        for mirrored in (False, True)
        for view in views
    }
    assert len(keys) == 16


def with_coin(make_clip: Any, number: int, *, flip: bool) -> Clip:
    """A clip of which a view's coin fell so."""
    for seed in range(20):
        clip = Clip(make_clip(f"{flip}{seed}.mkv", seed=seed))
        key = entry_key(content_hash(clip.path), clip)
        if View.draw(key, number).flip is flip:
            return clip
    raise AssertionError("twenty coins fell to one side")


def test_features_are_those_of_the_frames_that_the_view_shows(make_clip: Any) -> None:
    clip = Clip(make_clip())
    run = extractor(None, view=2)
    (found,) = entries(run, [clip]).values()
    with DecodePool(workers=1) as pool:
        frames = pool.submit(run.request(clip)).result()  # plain ones tell the moments
        whole = extractor(None).request(clip)
        pixels = pool.submit(replace(whole, size=None)).result().pixels
    view = View.draw(entry_key(content_hash(clip.path), clip), 2)
    shown = np.stack([square(image, SPEC.size, "center", view=view) for image in pixels])
    (expected,) = run.encoder.engine.features([shown], FP32, [SPEC.grid])
    assert np.array_equal(found.times, frames.times)
    assert np.allclose(found.features, expected, rtol=2**-9, atol=2**-9)


def test_a_second_run_reuses_every_view(make_clip: Any, tmp_path: Path) -> None:
    cache, clip = tmp_path / "cache", Clip(make_clip())
    first: list[Entry] = []
    for view in range(3):
        each = extractor(cache, view=view)
        first += entries(each, [clip]).values()
        assert (each.stats.computed, each.stats.reused) == (1, 0)
    assert not any(close(first[i], first[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for view in range(3):
        each = extractor(cache, view=view)
        assert close(entries(each, [clip])[clip], first[view])
        assert (each.stats.computed, each.stats.reused) == (0, 1)


@pytest.mark.parametrize("flip", [False, True])
def test_a_coin_decides_which_views_are_mirrored_where_that_is_allowed(
    make_clip: Any, tmp_path: Path, flip: bool
) -> None:
    cache, clip = tmp_path / "cache", with_coin(make_clip, 1, flip=flip)
    (plain,) = entries(extractor(cache, view=1), [clip]).values()
    allowed = extractor(cache, view=1, mirrored=True)
    (found,) = entries(allowed, [clip]).values()
    assert allowed.stats.computed == flip
    assert close(found, plain) is not flip


def test_coarser_grids_of_views_come_from_the_cache(make_clip: Any, tmp_path: Path) -> None:
    clip = Clip(make_clip())
    entries(extractor(tmp_path, view=1), [clip])
    coarse = extractor(tmp_path, replace(SPEC, grid=1), view=1)
    entries(coarse, [clip])
    assert (coarse.stats.computed, coarse.stats.reused) == (0, 1)


def test_a_view_of_a_clip_that_was_replaced_fails_and_is_not_kept(
    make_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was drawn for another content, whose key it must not get."""
    path, other = make_clip("a.mkv", seed=1), make_clip("b.mkv", seed=2)
    read = DecodePool.submit

    def hooked(pool: DecodePool, request: Any) -> Any:
        shutil.copy(other, tmp_path / "moved.mkv")
        (tmp_path / "moved.mkv").replace(path)
        return read(pool, request)

    monkeypatch.setattr(DecodePool, "submit", hooked)
    run = extractor(tmp_path / "cache", view=1)
    (found,) = dict(run.run([Clip(path)])).values()
    assert isinstance(found, InputError)
    assert "changed while it was read" in found.reason
    assert not list(Store(tmp_path / "cache").root.rglob("*.safetensors"))
    monkeypatch.undo()
    again = extractor(tmp_path / "cache", view=1)
    expected = entries(extractor(None, view=1), [Clip(other)])
    assert close(entries(again, [Clip(path)])[Clip(path)], expected[Clip(other)])


def test_rows_of_views_and_what_stands_for_those_that_are_missing(make_clip: Any) -> None:
    one, two = Clip(make_clip("a.mkv", seed=1)), Clip(make_clip("b.mkv", seed=2))
    (entry,) = entries(extractor(None), [one]).values()
    found = [(one, "plain"), (two, "plain"), (one, "mirrored"), (one, "view"), (two, "view")]
    table = build_table(
        ((clip, kind, entry) for clip, kind in [*found, (one, "view")]),  # type: ignore[misc]
        Sampling.parse("uniform"),
        4,
        FeatureBuffer(6),
    )
    assert (table.rows, table.mirrored_rows) == ({one: 0, two: 1}, {one: 2})
    assert table.views_of(one, 2) == [3, 5]
    assert table.views_of(two, 2) == [4, 1]
