"""Features side by side are the same in memory and in a file, and a file leaves nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import gathered

from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.features import table as pile_module
from vidfuse.features.cache import Entry, EntryInfo
from vidfuse.features.table import FeatureBuffer, map_buffer
from vidfuse.training.config import TrainConfig
from vidfuse.training.steps import new_fit

LENGTHS = (4, 2, 4, 1, 3, 4)


def clips(seed: int = 0) -> dict[Clip, Entry]:
    random = np.random.default_rng(seed)
    return {
        Clip(Path(f"{number}.mkv"), "ab"[number % 2]): Entry(
            random.standard_normal((length, 8, 1, 1)).astype(np.float16),
            np.arange(length, dtype=float),
            EntryInfo(0.0, float(length), length, 48, 32, "pyav", "fp32", f"{number}.mkv", []),
        )
        for number, length in enumerate(LENGTHS)
    }


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory to speak of."""
    monkeypatch.setattr(pile_module, "free_memory", lambda: 64)


def filled(pile: FeatureBuffer) -> np.ndarray[Any, Any]:
    for entry in clips().values():
        pile.append(entry.features)
    return pile.array()


@pytest.mark.parametrize("expected", [1, len(LENGTHS), 100])
def test_frames_come_back_whatever_number_was_expected(expected: int) -> None:
    every = np.concatenate([entry.features for entry in clips().values()])
    assert np.array_equal(filled(FeatureBuffer(expected)), every)


def test_what_fits_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(LENGTHS) * 4 * 8 * 2  # as if every clip were as long as the first
    for free, mapped in ((2 * size, False), (2 * size - 1, True)):
        monkeypatch.setattr(pile_module, "free_memory", lambda free=free: free)
        pile = FeatureBuffer(len(LENGTHS), tmp_path)
        filled(pile)
        assert pile.mapped is mapped, free


@pytest.mark.usefixtures("little")
def test_a_file_is_the_same_and_has_no_name(tmp_path: Path) -> None:
    pile = FeatureBuffer(len(LENGTHS), tmp_path / "new")
    assert np.array_equal(filled(pile), filled(FeatureBuffer(len(LENGTHS))))
    assert pile.mapped
    if os.name == "posix":
        assert list((tmp_path / "new").iterdir()) == []


def test_other_processes_map_a_named_file(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    here = filled(FeatureBuffer(len(LENGTHS), path=path))
    assert np.array_equal(map_buffer(path, here.shape), filled(FeatureBuffer(len(LENGTHS))))


def test_a_head_trained_from_a_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(pile: FeatureBuffer) -> dict[str, torch.Tensor]:
        config = TrainConfig(frames=4, device="cpu", epochs=3, batch_size=2, mirror=True)
        entries = clips()
        every = list(entries)
        found = gathered(entries, dict(zip(every[:2], clips(1).values(), strict=False)), pile)
        fit = new_fit(config, found, {"train": every[:4], "val": every[4:]}, ["a", "b"])
        assert len(fit.train) == 6
        assert [epoch.epoch for epoch in fit] == [1, 2, 3]
        return fit.head.state_dict()

    in_memory = weights(FeatureBuffer(8, tmp_path))
    monkeypatch.setattr(pile_module, "free_memory", lambda: 64)
    pile = FeatureBuffer(8, tmp_path)
    in_file = weights(pile)
    assert pile.mapped
    assert all(torch.equal(in_memory[name], in_file[name]) for name in in_memory)


@pytest.mark.usefixtures("little")
def test_too_small_a_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match=f"cannot be kept in {tmp_path}"):
        filled(FeatureBuffer(len(LENGTHS), tmp_path))


@pytest.mark.usefixtures("little")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full")
def test_a_disk_that_fills_up_is_an_error_that_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full").open("wb")  # noqa: SIM115  # the pile closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full)
    with pytest.raises(UserError, match=os.strerror(errno.ENOSPC)) as error:
        filled(FeatureBuffer(len(LENGTHS), tmp_path))
    assert "--cache" in str(error.value.hint)
