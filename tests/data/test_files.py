from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from trees import make_tree

from vidfuse.data.files import (
    expand_inputs,
    is_frame_folder,
    is_video,
    natural_key,
    peek_videos,
    walk_videos,
)
from vidfuse.errors import InputError


def names(root: Path, paths) -> list[str]:
    return [p.relative_to(root).as_posix() for p in paths]


def test_is_video_goes_by_suffix_in_any_case():
    assert is_video("a.AVI")
    assert is_video(Path("b/c.webm"))
    assert not is_video("a.txt")
    assert not is_video("avi")


def test_natural_key_orders_numbers_by_value():
    assert sorted(["c10", "c2", "C1", "٣x", "1", "a"], key=natural_key) == [
        "1", "a", "C1", "c2", "c10", "٣x",
    ]  # fmt: skip


def test_walk_is_recursive_ordered_and_leaves_system_files_out(tmp_path):
    make_tree(
        tmp_path,
        "b/x10.avi", "b/x2.avi", "a.mp4", "b/deep/er/c.MKV", "notes.txt", ".hidden.avi",
        "._a.mp4", "__MACOSX/a.mp4", "b/Thumbs.db", ".git/x.avi",
    )  # fmt: skip
    expected = ["a.mp4", "b/deep/er/c.MKV", "b/x2.avi", "b/x10.avi"]
    assert names(tmp_path, walk_videos(tmp_path)) == expected


def test_walk_survives_link_loops(tmp_path):
    make_tree(tmp_path, "A/1.avi", "B/2.avi")
    (tmp_path / "A/up").symlink_to(tmp_path)
    (tmp_path / "A/self").symlink_to(tmp_path / "A")
    (tmp_path / "A/other").symlink_to(tmp_path / "B")
    (tmp_path / "B/back").symlink_to(tmp_path / "A")
    assert names(tmp_path, walk_videos(tmp_path / "A")) == ["A/1.avi", "A/other/2.avi"]
    assert len(list(walk_videos(tmp_path))) == 2


def test_walk_reports_broken_links_and_odd_files(tmp_path):
    make_tree(tmp_path, "a.avi")
    (tmp_path / "gone.avi").symlink_to(tmp_path / "nowhere.avi")
    (tmp_path / "link to a device.avi").symlink_to("/dev/null")
    (tmp_path / "loop.avi").symlink_to("loop.avi")
    os.mkfifo(tmp_path / "pipe.avi")
    problems: list[InputError] = []
    assert names(tmp_path, walk_videos(tmp_path, problems)) == ["a.avi"]
    assert {Path(p.path).name: p.reason for p in problems} == {
        "gone.avi": "broken link",
        "link to a device.avi": "not a regular file",
        "loop.avi": "broken link",
        "pipe.avi": "not a regular file",
    }


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("A/1.png", "B/1.jpg"), ["A", "B"]),  # nothing else is there
        (("A/1.png", "B/1.jpg", "B/2.jpg"), ["A"]),  # others are clips
        (("A/1.png", "a.avi"), []),  # as a thumbnail beside a video
    ],
)
def test_a_picture_alone_is_told_where_it_may_be_a_clip(tmp_path, files, told):
    make_tree(tmp_path, *files)
    problems: list[InputError] = []
    list(walk_videos(tmp_path, problems))
    assert [Path(p.path).name for p in problems] == told
    assert all("one frame alone" in p.reason for p in problems)
    list(walk_videos(tmp_path, problems := [], growing=True))
    assert not problems, "the second frame may still come"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_walk_reports_unreadable_subfolders(tmp_path):
    make_tree(tmp_path, "a.avi", "locked/b.avi")
    (tmp_path / "locked").chmod(0)
    problems: list[InputError] = []
    assert names(tmp_path, walk_videos(tmp_path, problems)) == ["a.avi"]
    (tmp_path / "locked").chmod(0o700)
    assert [p.reason for p in problems] == ["permission denied"]


def test_walk_of_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(walk_videos(tmp_path / "nope"))


def test_a_subfolder_of_pictures_is_a_clip(tmp_path):
    make_tree(tmp_path, "jump/v1/0001.jpg", "jump/v1/0002.jpg", "jump/v2.avi", "jump/cover.jpg")
    make_tree(tmp_path, "run/a.jpg", "run/b.jpg", "run/take/x.avi")
    assert names(tmp_path, walk_videos(tmp_path)) == ["jump/v1", "jump/v2.avi", "run/take/x.avi"]
    assert is_frame_folder(tmp_path / "jump/v1")
    assert not is_frame_folder(tmp_path / "jump")
    assert not is_frame_folder(tmp_path / "nope")


def test_peek_stops_early(tmp_path):
    make_tree(tmp_path, *(f"a/{i}.avi" for i in range(30)), "frames/x/1.png", "frames/x/2.png")
    assert len(peek_videos(tmp_path, 7)) == 7
    assert peek_videos(tmp_path / "frames") == [tmp_path / "frames/x"]
    assert peek_videos(tmp_path / "a", count=100, limit=10) != []
    assert len(peek_videos(tmp_path / "a", count=100, limit=10)) <= 10
    assert peek_videos(tmp_path / "nope") == []


def expand(*arguments: str | Path, stdin: str | None = None) -> list[str]:
    """Paths as text and errors as ``!reason``."""
    lines = None if stdin is None else io.StringIO(stdin)
    return [
        f"!{item.reason}" if isinstance(item, InputError) else item.as_posix()
        for item in expand_inputs([str(a) for a in arguments], lines)
    ]


@pytest.fixture
def clips(tmp_path, monkeypatch):
    make_tree(tmp_path, "c/b10.avi", "c/b2.avi", "c/n.txt", "c/sub/z.mp4", "odd[1].avi", "empty/")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("clips")
class TestExpandInputs:
    def test_files_are_passed_on_missing_or_not_and_repeated(self):
        assert expand("c/b2.avi", "nope.avi", "c/b2.avi", "c/n.txt") == [
            "c/b2.avi", "nope.avi", "c/b2.avi", "c/n.txt",
        ]  # fmt: skip

    def test_a_folder_stands_for_its_videos(self):
        assert expand("c") == ["c/b2.avi", "c/b10.avi", "c/sub/z.mp4"]

    def test_an_empty_folder_is_one_error(self):
        assert expand("empty", "c/b2.avi") == ["!no video in this folder", "c/b2.avi"]

    def test_a_folder_of_pictures_is_one_input(self, clips):
        make_tree(clips, "frames/1.png", "frames/2.png")
        assert expand("frames") == ["frames"]

    def test_a_folder_with_one_picture_is_an_input_where_it_is_named(self, clips):
        make_tree(clips, "thumbs/1/a.png", "notes/1.png", "notes/read.me")
        assert expand("thumbs/1") == ["thumbs/1"]
        assert expand("notes") == ["!no video in this folder"]

    def test_globs(self):
        assert expand("c/*.avi") == ["c/b2.avi", "c/b10.avi"]
        assert expand("c/*") == ["c/b2.avi", "c/b10.avi", "c/sub/z.mp4"]
        assert expand("**/*.mp4") == ["c/sub/z.mp4"]
        assert sorted(expand("c/**")) == ["c/b10.avi", "c/b2.avi", "c/sub/z.mp4"]
        assert expand("c/*.txt") == ["c/n.txt"]
        assert expand("c/*.mov") == ["!no video matches this pattern"]
        assert expand("em*") == ["!no video matches this pattern"]

    def test_a_file_with_brackets_in_its_name_wins_over_the_glob(self):
        assert expand("odd[1].avi") == ["odd[1].avi"]

    def test_standard_input(self):
        text = "\ufeffc/b2.avi\r\n\n  \nnope.avi\nodd[1].avi\nc/sub\nwith space .avi"
        assert expand("-", stdin=text) == [
            "c/b2.avi", "nope.avi", "odd[1].avi", "c/sub/z.mp4", "with space .avi",
        ]  # fmt: skip
        assert expand("-", stdin="c/b2.avi\0c/sub\0nope.avi\0") == [
            "c/b2.avi", "c/sub/z.mp4", "nope.avi",
        ]  # fmt: skip
        assert expand("-", stdin="") == ["!no paths on standard input"]
        assert expand("-") == ["!no paths on standard input"]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
    def test_standard_input_is_streamed(self, end):
        """Each name is there before the next is written, whatever stands between them."""
        source, sink = os.pipe()
        with os.fdopen(sink, "wb", buffering=0) as writer, os.fdopen(source) as reader:
            found = None
            for name in ("a.avi", "ü b.avi", "c.avi"):
                writer.write(f"{name}{end}".encode())
                found = found or expand_inputs(["-"], reader)
                assert next(found) == Path(name)

    def test_a_name_with_a_line_break_between_zero_bytes(self):
        assert expand("-", stdin="a\nb.avi\0c\r\n.avi\0d.avi") == ["a\nb.avi", "c\r\n.avi", "d.avi"]

    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_names_that_come_in_parts(self, size, monkeypatch):
        monkeypatch.setattr("vidfuse.data.files._BLOCK", size)
        text = "ä.avi\nb.avi\r\n" + "c" * 5000 + ".avi"
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
        found = list(expand_inputs(["-"], stdin))
        assert found == [Path("ä.avi"), Path("b.avi"), Path("c" * 5000 + ".avi")]

    def test_standard_input_that_is_no_text(self):
        stdin = io.TextIOWrapper(io.BytesIO(b"\xff\xfe.avi\n"), encoding="utf-8")
        (item,) = expand_inputs(["-"], stdin)
        assert isinstance(item, InputError)
        assert "not utf-8 text" in item.reason

    def test_an_empty_argument_is_not_the_working_folder(self):
        assert expand("") == ["!an empty path"]
