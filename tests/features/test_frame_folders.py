"""Clips stored as frames go through the pipeline as videos do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import SPEC, entries, extractor
from PIL import Image

from vidfuse.data.clip import Clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (40, 32), (12 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def test_their_rate_decides_what_a_segment_holds(folder: Path, tmp_path: Path) -> None:
    clip = Clip(folder, start=0.4, end=0.8)
    usual = entries(extractor(tmp_path / "cache"), [clip])[clip]
    slow = entries(extractor(tmp_path / "cache", replace(SPEC, fps=10)), [clip])[clip]
    assert usual.times.tolist() == pytest.approx([i / 25 for i in (11, 13, 16, 18)])
    assert slow.times.tolist() == pytest.approx([i / 10 for i in (4, 5, 6, 7)])
    assert usual.info.decoder == "images"


def test_features_of_a_whole_folder_do_not_depend_on_the_rate(folder: Path) -> None:
    clip = Clip(folder)
    usual = entries(extractor(None), [clip])[clip]
    slow = entries(extractor(None, replace(SPEC, fps=10)), [clip])[clip]
    assert np.array_equal(usual.features, slow.features)
    assert slow.times.tolist() == pytest.approx((usual.times * 2.5).tolist())


def test_a_second_run_opens_no_picture(folder: Path, tmp_path: Path) -> None:
    first = extractor(tmp_path / "cache")
    entries(first, [Clip(folder)])
    again = extractor(tmp_path / "cache")
    entries(again, [Clip(folder)])
    assert (first.stats.computed, again.stats.computed, again.stats.reused) == (1, 0, 1)
