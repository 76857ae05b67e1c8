"""A cached entry is of the content that was decoded, whatever happens to files during a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from clips import SPEC, close, entries, extractor

from vidfuse.data.clip import Clip
from vidfuse.data.content import Content, ContentIndex, content_hash, stamp_of
from vidfuse.errors import InputError
from vidfuse.features.cache import Store, entry_key
from vidfuse.features.extract import Extractor
from vidfuse.video import worker
from vidfuse.video.decoder import read_from
from vidfuse.video.frames import Frames
from vidfuse.video.pool import DecodePool, frames_of

Replace = Callable[[Path, Path], None]


@pytest.fixture
def before_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something done when contents are known and nothing is decoded yet, once."""

    def arrange(action: Callable[[], None]) -> None:
        actions = [action]
        read = DecodePool.submit

        def hooked(pool: DecodePool, request: Any) -> Any:
            while actions:
                actions.pop()()
            return read(pool, request)

        monkeypatch.setattr(DecodePool, "submit", hooked)

    return arrange


def by_renaming(path: Path, other: Path) -> None:
    os.replace(shutil.copy(other, f"{other}.copy"), path)


def in_place(path: Path, other: Path) -> None:
    """Its times are set back, as some programs that copy do."""
    status = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("replace", [by_renaming, in_place])
def test_a_file_replaced_before_it_is_decoded(
    replace: Replace, make_clip: Any, tmp_path: Path, before_decoding: Any
) -> None:
    path, other = make_clip("a.mkv", seed=1), make_clip("b.mkv", seed=2)
    genuine = Path(shutil.copy(path, tmp_path / "genuine.mkv"))
    before_decoding(lambda: replace(path, other))
    run = extractor(tmp_path / "cache")
    (found,) = entries(run, [Clip(path)]).values()
    assert run.stats.hashes[Clip(path)] == content_hash(other)
    wanted = entries(extractor(None), [Clip(genuine), Clip(other)])
    assert close(found, wanted[Clip(other)])
    # What is cached now is the other's, and the genuine clip gets its own features.
    again = extractor(tmp_path / "cache")
    cached = entries(again, [Clip(genuine), Clip(other)])
    assert (again.stats.computed, again.stats.reused) == (1, 1)
    assert all(close(cached[clip], wanted[clip]) for clip in wanted)


def test_one_of_two_equal_files_is_replaced(
    make_clip: Any, tmp_path: Path, before_decoding: Any
) -> None:
    path, other = make_clip("a.mkv", seed=1), make_clip("b.mkv", seed=2)
    twin = Path(shutil.copy(path, tmp_path / "twin.mkv"))
    before_decoding(lambda: by_renaming(path, other))
    run = extractor(tmp_path / "cache")
    found = entries(run, [Clip(path), Clip(twin)])
    wanted = entries(extractor(None), [Clip(twin), Clip(other)])
    assert close(found[Clip(path)], wanted[Clip(other)])
    assert close(found[Clip(twin)], wanted[Clip(twin)])
    assert run.stats.computed == 2


@pytest.mark.parametrize("end", [Path.unlink, lambda path: path.write_bytes(b"no video")])
def test_a_copy_does_not_fail_with_the_one_that_was_decoded_in_its_place(
    end: Callable[[Path], Any], make_clip: Any, tmp_path: Path, before_decoding: Any
) -> None:
    path = make_clip("a.mkv")
    twin = Path(shutil.copy(path, tmp_path / "twin.mkv"))
    before_decoding(lambda: end(path))
    run = extractor(tmp_path / "cache")
    found = dict(run.run([Clip(path), Clip(twin)]))
    assert isinstance(found[Clip(path)], InputError)
    assert not isinstance(found[Clip(twin)], InputError)
    assert [clip.path for clip, _ in run.stats.failures] == [path]


def test_a_file_that_was_only_touched(make_clip: Any, tmp_path: Path, before_decoding: Any) -> None:
    path = make_clip("a.mkv")
    before_decoding(lambda: os.utime(path))
    run = extractor(tmp_path / "cache")
    entries(run, [Clip(path)])
    key = entry_key(content_hash(path), Clip(path))
    assert Store(tmp_path / "cache").has(SPEC, key)
    assert run.stats.computed == 1


def test_a_folder_of_frames_of_which_one_is_replaced(tmp_path: Path, before_decoding: Any) -> None:
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number}.png")
    before = content_hash(folder)
    before_decoding(lambda: Image.new("RGB", (40, 40), (0, 99, 0)).save(folder / "2.png"))
    run = extractor(tmp_path / "cache")
    entries(run, [Clip(folder)])
    store = Store(tmp_path / "cache")
    assert not store.has(SPEC, entry_key(before, Clip(folder)))
    assert store.has(SPEC, entry_key(content_hash(folder), Clip(folder)))


def test_a_file_that_is_written_while_it_is_decoded_fails_and_nothing_is_cached(
    make_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing, still = make_clip("a.mkv", seed=1), make_clip("b.mkv", seed=2)

    def slow(reader: Any, request: Any) -> Any:
        frames = read_from(reader, request)
        if request.path == str(growing):
            growing.open("ab").write(b"more")
        return frames

    monkeypatch.setattr(worker, "read_from", slow)
    run = extractor(tmp_path / "cache", pool=Here())
    found = dict(run.run([Clip(growing), Clip(still)]))
    assert isinstance(found[Clip(growing)], InputError)
    assert "changed while it was read" in found[Clip(growing)].reason
    assert not isinstance(found[Clip(still)], InputError)
    assert [clip.path for clip, _ in run.stats.failures] == [growing]
    assert len(list(Store(tmp_path / "cache").entries())) == 1


class Here(DecodePool):
    """Reads clips in this process, where a test can see to them."""

    def __init__(self) -> None:
        super().__init__("pyav", 1)
        self.desk = worker.ReaderCache()

    def submit(self, request: Any) -> Future[Frames]:
        order = {"op": "read", "backend": "pyav", "keep": False}
        answer = worker.answer(order | {"request": asdict(request)}, self.desk)
        done: Future[Frames] = Future()
        done.set_result(frames_of(answer["frames"], answer["payload"].tobytes()))
        return done


def test_what_was_decoded_is_told_by_stamps(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    index = ContentIndex(None)
    before = index.contents([path])[path]
    assert isinstance(before, Content)
    stamp = stamp_of(path)
    assert not before.settled  # it was written just now
    assert index.content_then(path, before, stamp).digest == before.digest
    assert index.content_then(path, before._replace(settled=True), stamp) is not None
    path.write_bytes(b"two")
    now = index.content_then(path, before, stamp_of(path))
    assert now.digest == content_hash(path) != before.digest
    for unknown in (stamp, None):  # neither what it was by then nor what it is now
        with pytest.raises(InputError, match="changed while it was read"):
            index.content_then(path, before, unknown)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        index.content_then(path, before, stamp)


def on(grid: int, cache: Path, **changes: Any) -> Extractor:
    from dataclasses import replace

    return extractor(cache, replace(SPEC, grid=grid), **changes)


def test_what_a_head_of_one_cell_caches_serves_the_default_head(
    make_clip: Any, tmp_path: Path
) -> None:
    clip, cache = Clip(make_clip("a.mkv")), tmp_path / "cache"
    first = on(1, cache, more=True)
    (one,) = entries(first, [clip]).values()
    assert one.features.shape[-2:] == (1, 1)
    for grid in (1, 2):
        later = on(grid, cache)
        (entry,) = entries(later, [clip]).values()
        assert (later.stats.computed, later.stats.reused) == (0, 1), grid
        (alone,) = entries(on(grid, tmp_path / f"other{grid}"), [clip]).values()
        assert (entry.features == alone.features).all(), grid  # to the bit as without the other


def test_a_grid_that_was_asked_for_is_all_that_is_cached(make_clip: Any, tmp_path: Path) -> None:
    clip, cache = Clip(make_clip("a.mkv")), tmp_path / "cache"
    entries(on(1, cache), [clip])
    entries(on(4, cache, more=True), [clip])
    assert len(list(Store(cache).entries())) == 2


def test_a_map_of_one_cell_has_no_other_grid(make_clip: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    spec = replace(SPEC, grid=1, layer="layer4")  # 1x1 at 32 pixels
    entries(extractor(tmp_path / "cache", spec, more=True), [Clip(make_clip("a.mkv"))])
    assert len(list(Store(tmp_path / "cache").entries())) == 1
