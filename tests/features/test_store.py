"""The cache never hands out what it did not take in."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from heard import Heard

from vidfuse.errors import UserError
from vidfuse.features import cache as store_module
from vidfuse.features.cache import DamagedEntryError, Entry, EntryInfo, Store, load_entry
from vidfuse.features.maintenance import cache_info, prune, verify
from vidfuse.features.spec import FeatureSpec
from vidfuse.progress import Reporter

SPEC = FeatureSpec("auto/1", "uniform", 4, 32, "center", "resnet18", "layer2", "random", 2)
KEY = "0123456789abcdef0123456789abcdef"


def entry(value: float = 1.0, *, seed: int = 0) -> Entry:
    rng = np.random.default_rng(seed)
    features = (rng.random((3, 4, 2, 2)) + value).astype(np.float16)
    info = EntryInfo(0.0, 3.0, 30, 48, 32, "pyav", "fp32", "/clips/ä b.mkv", ["a warning"])
    return Entry(features, np.array([0.5, 1.5, 2.5]), info)


def same(one: Entry | None, other: Entry) -> bool:
    return (
        one is not None
        and one.info == other.info
        and np.array_equal(one.features, other.features)
        and np.array_equal(one.times, other.times)
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a cache, größer")


def test_an_entry_comes_back_as_it_was(store: Store) -> None:
    assert store.read(SPEC, KEY) is None
    store.write(SPEC, KEY, entry())
    assert same(store.read(SPEC, KEY), entry())
    assert json.loads((store.root / SPEC.digest / "spec.json").read_text()) == SPEC.to_dict()
    assert store.specs() == [SPEC]


def test_a_torn_entry_is_dropped_and_reported(store: Store) -> None:
    path = store.path(SPEC, KEY)
    store.write(SPEC, KEY, entry())
    content = path.read_bytes()
    for size in [*range(12), *range(12, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:size])
        heard = Heard()
        assert store.read(SPEC, KEY, heard) is None, size
        assert len(heard.warnings) == 1
        assert str(path) in heard.warnings[0]
        assert not path.exists()
    store.write(SPEC, KEY, entry())
    assert same(store.read(SPEC, KEY), entry())


def test_a_flipped_bit_anywhere_is_noticed(store: Store) -> None:
    path = store.path(SPEC, KEY)
    store.write(SPEC, KEY, entry())
    content = path.read_bytes()
    dropped = 0
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        read = store.read(SPEC, KEY)
        # A bit of the header's padding may flip without changing anything.
        assert read is None or same(read, entry()), f"byte {at}"
        dropped += read is None
    assert dropped >= len(content) - 8


def test_bytes_behind_the_end_are_noticed(store: Store) -> None:
    path = store.path(SPEC, KEY)
    store.write(SPEC, KEY, entry())
    path.write_bytes(path.read_bytes() + b"\0")
    assert store.read(SPEC, KEY) is None


@pytest.mark.parametrize(
    ("spec", "key"), [(replace(SPEC, layer="layer3"), KEY), (SPEC, KEY[::-1])], ids=["spec", "clip"]
)
def test_the_entry_of_another_is_noticed(store: Store, spec: FeatureSpec, key: str) -> None:
    store.write(spec, key, entry(5.0))
    store.write(SPEC, KEY, entry(1.0))
    store.path(spec, key).replace(store.path(SPEC, KEY))
    heard = Heard()
    assert store.read(SPEC, KEY, heard) is None
    assert len(heard.warnings) == 1


def test_a_damaged_entry_gives_way_to_a_sound_one_of_a_finer_grid(store: Store) -> None:
    store.write(SPEC, KEY, entry())
    finer = Entry(np.ones((3, 4, 4, 4), np.float16), entry().times, entry().info)
    store.write(replace(SPEC, grid=4), KEY, finer)
    store.path(SPEC, KEY).write_bytes(b"")
    read = store.read(SPEC, KEY)
    assert read is not None
    assert read.features.shape == (3, 4, 2, 2)


def test_an_entry_that_cannot_be_read_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(SPEC, KEY, entry())

    def too_many(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", too_many)
        with pytest.raises(UserError, match="Too many open files") as error:
            store.read(SPEC, KEY)
    assert str(store.root) in error.value.message
    assert same(store.read(SPEC, KEY), entry())


def test_a_damaged_entry_in_a_read_only_cache_is_not_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(SPEC, KEY, entry())
    store.path(SPEC, KEY).write_bytes(b"torn")

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    heard = Heard()
    assert store.read(SPEC, KEY, heard) is None
    assert heard.warnings


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_cannot_be_written_leaves_nothing_and_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    store.write(SPEC, KEY, entry())
    write_bytes = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        for key in (KEY, KEY[::-1]):
            with pytest.raises(UserError, match=os.strerror(reason)) as error:
                store.write(SPEC, key, entry(2.0))
    assert str(store.root) in error.value.message
    assert "--cache" in str(error.value.hint)
    assert same(store.read(SPEC, KEY), entry())
    assert store.read(SPEC, KEY[::-1]) is None
    assert not list(store.root.rglob("*.partial"))


def test_a_cache_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}"):
        Store(tmp_path / "file").write(SPEC, KEY, entry())


def test_what_dead_processes_left_is_pruned_and_what_is_being_written_is_not(store: Store) -> None:
    store.write(SPEC, KEY, entry())
    folder = store.path(SPEC, KEY).parent
    old, new = folder / "a.safetensors.1-ab.partial", folder / "b.safetensors.2-cd.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    hours_ago = time.time() - 2 * store_module.LEFTOVER_SECONDS
    os.utime(old, (hours_ago, hours_ago))
    assert cache_info(store)["entries"] == 1
    assert list(store.leftovers()) == [old]
    assert prune(store, dry_run=True)["leftovers"] == 1
    assert old.exists()
    assert prune(store)["leftovers"] == 1
    assert [path.name for path in folder.iterdir() if path.suffix == ".partial"] == [new.name]
    assert same(store.read(SPEC, KEY), entry())


def test_verify_names_and_removes_damaged_entries(store: Store) -> None:
    store.write(SPEC, KEY, entry())
    store.write(SPEC, KEY[::-1], entry())
    path = store.path(SPEC, KEY)
    path.write_bytes(path.read_bytes()[:-1])
    report = verify(store, Reporter())
    assert report["entries"] == 2
    assert report["damaged"] == [str(path)]
    assert not path.exists()
    assert same(store.read(SPEC, KEY[::-1]), entry())


def test_prune_removes_the_oldest_down_to_a_size(store: Store) -> None:
    keys = [f"{i:02x}" * 16 for i in range(4)]
    for age, key in enumerate(keys):
        store.write(SPEC, key, entry())
        moment = time.time() - 100 * age
        os.utime(store.path(SPEC, key), (moment, moment))
    size = store.path(SPEC, keys[0]).stat().st_size
    assert prune(store, max_bytes=2 * size)["removed"] == 2
    assert [store.has(SPEC, key) for key in keys] == [True, True, False, False]
    assert prune(store, everything=True)["removed"] == 2
    assert cache_info(store)["entries"] == 0
    assert not (store.root / SPEC.digest).exists()


def test_a_torn_spec_file_hides_no_entry(store: Store) -> None:
    store.write(SPEC, KEY, entry())
    for text in ("", "[]", '{"decode": "auto/1"}', "null"):
        (store.root / SPEC.digest / "spec.json").write_text(text)
        assert store.specs() == []
        assert cache_info(store)["entries"] == 1


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_store import KEY, SPEC, entry, same
from vidfuse.features.cache import Store

store, number = Store(Path(sys.argv[2])), int(sys.argv[3])
for round in range(60):
    store.write(SPEC, KEY, entry(seed=round % 3))
    own = f"{number:02x}" * 16
    store.write(SPEC, own, entry(seed=number))
    read = store.read(SPEC, KEY)
    assert read is not None, "an entry was dropped"
    assert any(same(read, entry(seed=seed)) for seed in range(3)), "a mixed entry"
    assert same(store.read(SPEC, own), entry(seed=number))
"""


def test_two_processes_share_a_cache(store: Store) -> None:
    here = str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, here, str(store.root), str(number)],
            stderr=subprocess.PIPE,
        )
        for number in (1, 2)
    ]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert verify(store, Reporter()) == {"cache": str(store.root), "entries": 3, "damaged": []}
    assert not list(store.root.rglob("*.partial"))


def test_errors_of_reading_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_entry(tmp_path / "none.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(DamagedEntryError):
        load_entry(tmp_path / "torn.safetensors")


def test_free_bytes_asks_the_disk_of_a_cache_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    usage = shutil.disk_usage

    def disk_usage(path: Path) -> object:
        asked.append(path)
        return usage(path)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert Store(tmp_path / "not" / "there").free_bytes() > 0
    assert asked == [tmp_path]
