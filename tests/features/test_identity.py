"""A changed file is noticed, an unchanged one is not read again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from vidfuse.data import content
from vidfuse.data import content as stamp
from vidfuse.data.clip import Clip
from vidfuse.data.content import Content, ContentIndex, content_hash
from vidfuse.errors import InputError
from vidfuse.features.cache import entry_key
from vidfuse.progress import Reporter


def hash_of(index: ContentIndex, path: Path) -> str:
    """The content hash of one path."""
    found = index.contents([path])[path]
    if isinstance(found, InputError):
        raise found
    return found.digest


def digests(index: ContentIndex, paths: list[Path]) -> dict[Path, str]:
    """The content hash of each path, all of which can be read."""
    return {
        path: content.digest
        for path, content in index.contents(paths).items()
        if isinstance(content, Content)
    }


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read."""
    names: list[str] = []

    def hook(path: Path) -> str:
        names.append(path.name)
        return content_hash(path)

    monkeypatch.setattr(content, "content_hash", hook)
    return names


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this moment are as good as older ones, where a test does not say otherwise."""
    monkeypatch.setattr(stamp, "TICK_NS", -1)


@pytest.fixture
def index(tmp_path: Path) -> ContentIndex:
    return ContentIndex(tmp_path / "the cache")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"first content")
    return path


def test_a_second_run_reads_no_video(index: ContentIndex, video: Path, read: list[str]) -> None:
    first = hash_of(index, video)
    assert first == content_hash(video)
    assert read == ["video.mp4"]
    # Another run, and another way to write the path.
    again = ContentIndex(video.parent / "the cache")
    assert hash_of(again, video.parent / "." / "video.mp4") == first
    assert read == ["video.mp4"]


@pytest.mark.parametrize("change", ["in place", "replaced", "appended"])
def test_a_changed_file_is_read_again(
    index: ContentIndex, video: Path, read: list[str], change: str
) -> None:
    before, times = hash_of(index, video), (video.stat().st_atime_ns, video.stat().st_mtime_ns)
    if change == "in place":  # of the same size, and with its old mtime
        video.write_bytes(b"other content")
        os.utime(video, ns=times)
    elif change == "replaced":
        other = video.with_name("other")
        other.write_bytes(b"other content")
        os.utime(other, ns=times)
        other.replace(video)
    else:
        with video.open("ab") as file:
            file.write(b"!")
    after = hash_of(index, video)
    assert after == content_hash(video)
    assert after != before
    assert read == ["video.mp4"] * 2


def test_a_touched_file_is_read_again_and_keeps_its_hash(
    index: ContentIndex, video: Path, read: list[str]
) -> None:
    before = hash_of(index, video)
    os.utime(video, (1, 1))
    assert hash_of(index, video) == before
    assert len(read) == 2
    hash_of(index, video)
    assert len(read) == 2


def test_what_changed_this_moment_is_not_remembered(
    index: ContentIndex, video: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file can be written twice within one tick of the clock, with the same stamp."""
    monkeypatch.setattr(stamp, "TICK_NS", 10**12)
    hash_of(index, video)
    hash_of(index, video)
    assert len(read) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    index: ContentIndex, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path) -> str:
        digest = content_hash(path)
        path.write_bytes(b"meanwhile")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(content, "content_hash", slow)
        hash_of(index, video)
    assert hash_of(index, video) == content_hash(video)


def test_folders_of_frames_are_read_again_when_a_file_in_them_changes(
    index: ContentIndex, tmp_path: Path, read: list[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(name.encode())
    before = hash_of(index, folder)
    assert hash_of(index, folder) == before
    assert len(read) == 1
    (folder / "1.png").write_bytes(b"other")
    assert hash_of(index, folder) != before
    (folder / "2.png").rename(folder / "3.png")
    assert hash_of(index, folder) == content_hash(folder)
    assert len(read) == 3


def test_each_path_is_answered_once_in_order(index: ContentIndex, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.mp4" for i in range(20)]
    for i, path in enumerate(paths):
        if i != 7:
            path.write_bytes(bytes([i + 1]))
    answers = index.contents([*paths, paths[0]])
    assert list(answers) == paths
    assert [path for path, value in answers.items() if isinstance(value, InputError)] == [paths[7]]
    assert len({str(value) for value in answers.values()}) == 20
    with pytest.raises(InputError, match=r"7\.mp4"):
        hash_of(index, paths[7])


def test_nothing_is_remembered_without_a_folder(video: Path, read: list[str]) -> None:
    index = ContentIndex(None)
    assert hash_of(index, video) == hash_of(index, video)
    assert len(read) == 2


def test_a_name_that_is_no_unicode(index: ContentIndex, tmp_path: Path, read: list[str]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe video.mp4"))
    path.write_bytes(b"content")
    assert hash_of(index, path) == hash_of(index, path)
    assert len(read) == 1


@pytest.mark.parametrize(
    "damage",
    [b"", b"no database at all, but long enough to look like one" * 9, "middle", "journal"],
)
def test_a_corrupt_index_begins_anew(
    index: ContentIndex, video: Path, read: list[str], damage: bytes | str
) -> None:
    many = [video.with_name(f"{i}.mp4") for i in range(200)]
    for path in many:
        path.write_bytes(path.name.encode())
    expected = digests(index, many)
    file = video.parent / "the cache" / "index.sqlite"
    content = file.read_bytes()
    if damage == "middle":  # a sound first page
        file.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    elif damage == "journal":
        file.write_bytes(content[:50])
        file.with_name("index.sqlite-journal").write_bytes(os.urandom(5000))
    else:
        file.write_bytes(damage)  # type: ignore[arg-type]
    assert digests(index, many) == expected
    assert digests(index, many) == expected
    read.clear()
    assert digests(index, many) == expected
    assert read == [], "the new index remembers nothing"


def test_an_index_that_cannot_be_written_is_only_slower(tmp_path: Path, video: Path) -> None:
    (tmp_path / "a file").write_text("")
    index = ContentIndex(tmp_path / "a file")
    assert hash_of(index, video) == content_hash(video)


def test_a_locked_index_is_only_slower(
    index: ContentIndex, video: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = hash_of(index, video)
    connect = sqlite3.connect
    with connect(video.parent / "the cache" / "index.sqlite") as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite3, "connect", lambda file, timeout: connect(file, timeout=0))
        assert hash_of(index, video) == expected
    other.close()
    assert len(read) == 2
    assert hash_of(index, video) == expected
    assert len(read) == 2


WRITER = """
import sys
from pathlib import Path
from vidfuse.data.content import Content, ContentIndex
folder = Path(sys.argv[1])
for round in range(20):
    index = ContentIndex(folder / "cache")
    for content in index.contents(folder / f"{i}.mp4" for i in range(30)).values():
        assert isinstance(content, Content), content
        (folder / f"{round % 30}.mp4").touch()
"""


def test_two_processes_share_an_index(tmp_path: Path, read: list[str]) -> None:
    paths = [tmp_path / f"{i}.mp4" for i in range(30)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i + 1]))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors.decode()
    index = ContentIndex(tmp_path / "cache")
    expected = {path: content_hash(path) for path in paths}
    assert digests(index, paths) == expected
    read.clear()
    assert digests(index, paths) == expected
    assert read == []


def test_stopping_midway_reads_no_further_and_keeps_what_is_known(
    index: ContentIndex, tmp_path: Path, read: list[str]
) -> None:
    paths = [tmp_path / f"{i}.mp4" for i in range(400)]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)

    class Interrupted(Reporter):
        def advance(self, steps: int = 1, note: str = "") -> None:
            if len(read) > 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.contents(paths, Interrupted())
    assert len(read) < 400
    read.clear()
    assert len(index.contents(paths[:1])) == 1
    assert read == []


def test_segments_of_one_file_have_keys_of_their_own() -> None:
    path = Path("video.mp4")
    segments = [(None, None), (1.0, None), (None, 1.0), (1.0, 2.0), (1.5, 2.0), (1.0, 2.5)]
    clips = [Clip(path, start=start, end=end) for start, end in segments]
    assert len({entry_key("content", clip) for clip in clips}) == len(segments)
    assert entry_key("content", clips[0]) != entry_key("other", clips[0])


def test_the_key_is_of_the_content_alone() -> None:
    one = Clip(Path("a.mp4"), label="x", group="g", split="train")
    assert entry_key("content", one) == entry_key("content", Clip(Path("b/c.avi")))
    assert entry_key("content", Clip(Path("a"), start=0.0)) == entry_key("content", one)
