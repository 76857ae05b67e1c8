"""Pictures on their way from a decode process: through shared memory, or through the pipe."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vidfuse.video import process, shared
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.shared import SIZE, SharedMemory, new_block
from vidfuse.video.workers import DecodePool

needs_memory = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="no memory without a name here"
)


def read(clip: Path, size: int | None = 32) -> Frames:
    with DecodePool("pyav", workers=1) as pool:
        return pool.read(FrameRequest(str(clip), "uniform", 4, size=size))


@needs_memory
def test_both_sides_see_the_same_block() -> None:
    block = new_block()
    assert block is not None
    here, there = SharedMemory(block), SharedMemory(block)
    os.close(block)
    pictures = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    assert there.put(pictures)
    assert here.take(24) == pictures.tobytes()
    copy = here.take(24)
    assert there.put(pictures[::-1].copy())
    assert copy == pictures.tobytes(), "what was taken changes with the next answer"
    assert not there.put(np.zeros(SIZE + 1, np.uint8))
    here.close()
    here.close()
    there.close()


@needs_memory
def test_pictures_come_through_memory_or_the_pipe(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = SharedMemory.take

    def counted(self: SharedMemory, size: int) -> bytes:
        taken.append(size)
        return take(self, size)

    monkeypatch.setattr(SharedMemory, "take", counted)
    through_memory = read(clip)
    assert taken == [4 * 32 * 32 * 3]
    large = 2048  # 4 pictures of 12 MiB
    assert 4 * large * large * 3 > SIZE
    assert read(clip, large).pictures.shape == (4, large, large, 3)
    monkeypatch.setattr(process, "new_block", lambda: None)
    through_pipe = read(clip)
    assert len(taken) == 1
    assert (through_pipe.pictures == through_memory.pictures).all()
    assert through_pipe.header() == through_memory.header()


@needs_memory
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_and_no_memory_stays_behind(clip: Path) -> None:
    def blocks() -> int:
        return Path("/proc/self/maps").read_text().count("vidfuse-pictures")

    read(clip)
    before, mapped = len(os.listdir("/proc/self/fd")), blocks()
    for _ in range(3):
        read(clip)
    assert len(os.listdir("/proc/self/fd")) == before
    assert blocks() == mapped


def test_systems_without_nameless_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(shared.os, "memfd_create", raising=False)
    assert new_block() is None


@needs_memory
@pytest.mark.parametrize("fails", ["memfd_create", "ftruncate"])
def test_a_system_that_refuses_memory(
    fails: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(38, "not here")

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(shared.os, fails, refuse)
    assert new_block() is None
    assert len(os.listdir("/dev/fd")) == before
    assert len(read(clip).times) == 4
