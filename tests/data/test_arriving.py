"""Inputs that come over time."""

from __future__ import annotations

import os
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from trees import make_tree

from vidfuse.data import watch as watching
from vidfuse.data.watch import as_it_comes, watch
from vidfuse.errors import InputError


def test_what_is_not_there_yet_is_a_none():
    more = threading.Event()

    def slow():
        yield "a"
        more.wait(20)
        yield "b"

    items = as_it_comes(slow())
    first = next(item for item in items if item is not None)
    waits = next(items)
    more.set()
    assert (first, waits) == ("a", None)
    assert [item for item in items if item is not None] == ["b"]


def test_a_list_without_an_end_is_not_read_ahead_of_its_reader():
    taken = count()
    items = as_it_comes(next(taken) for _ in iter(int, 1))
    found = [item for item, _ in zip(items, range(20), strict=False) if item is not None]
    assert found == list(range(len(found)))
    assert next(taken) <= len(found) + watching.AHEAD + 2


def test_what_the_source_raises_is_raised():
    def fails():
        yield 1
        raise OSError(5, "input/output error")

    items = as_it_comes(fails())
    assert next(item for item in items if item is not None) == 1
    with pytest.raises(OSError, match="input/output"):
        list(items)


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Looks at the folder once more, a quarter of a second later by a clock of its own."""
    now = count(step=0.25)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    items = watch(tmp_path)

    def once(times: int = 1) -> list[str]:
        found = []
        for _ in range(times):
            for item in iter(lambda: next(items), None):
                assert isinstance(item, Path | InputError)
                if isinstance(item, InputError):
                    found.append(item.reason)
                else:
                    found.append(item.relative_to(tmp_path).as_posix())
        return found

    return once


def test_each_file_comes_once_when_it_has_stopped_growing(tmp_path, look):
    make_tree(tmp_path, "there.mp4", "notes.txt", ".hidden.mp4.part")
    assert look(4) == []
    assert look() == ["there.mp4"]
    growing = tmp_path / "deep" / "new.avi"
    growing.parent.mkdir()
    for size in range(12):  # three seconds, and never a second without a change
        growing.write_bytes(b"x" * size)
        assert look() == []
    assert look(3) == []
    assert look(8) == ["deep/new.avi"]


def test_a_change_that_keeps_the_size_is_noticed(tmp_path, look):
    (tmp_path / "a.mp4").write_bytes(b"123")
    for moment in range(8):
        os.utime(tmp_path / "a.mp4", (moment, moment))
        assert look() == []
    assert look(8) == ["a.mp4"]


def test_a_file_that_is_written_anew_or_comes_back_is_a_new_one(tmp_path, look):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"123")
    assert look(8) == ["a.mp4"]
    path.write_bytes(b"12345")
    assert look(8) == ["a.mp4"]
    path.unlink()
    assert look() == []
    path.write_bytes(b"12345")
    assert look(8) == ["a.mp4"]


def test_a_folder_of_pictures_comes_when_its_last_picture_has(tmp_path, look):
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes(b"x")
        assert look() == []
    assert look(8) == ["clip"]


def test_what_cannot_be_read_is_told_once(tmp_path, look):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert look(8) == ["broken link"]


def test_a_folder_that_goes_away_is_an_error(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    items = watch(folder, poll=0)
    assert next(items) is None
    folder.rmdir()
    with pytest.raises(InputError, match="no such file or folder"):
        next(items)
