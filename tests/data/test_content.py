from __future__ import annotations

import hashlib
import os

import pytest
from trees import make_tree

from vidfuse.data.content import content_hash
from vidfuse.errors import InputError


def test_a_file_hashes_to_its_sha256(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"frames" * 100_000)
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_frame_folder_hashes_names_and_bytes(tmp_path):
    one = make_tree(tmp_path / "one", "1.jpg", "2.jpg")
    two = make_tree(tmp_path / "two", "2.jpg", "1.jpg", ".DS_Store", "Thumbs.db")
    assert content_hash(one) == content_hash(two)
    (two / "2.jpg").rename(two / "3.jpg")
    renamed = content_hash(two)
    (two / "3.jpg").write_bytes(b"y")
    assert len({content_hash(one), renamed, content_hash(two)}) == 3


def test_what_cannot_be_hashed(tmp_path):
    make_tree(tmp_path, "folder/")
    (tmp_path / "empty.avi").touch()
    (tmp_path / "link.avi").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.avi")
    for name, reason in {
        "nope.avi": "no such file or folder",
        "link.avi": "no such file or folder",
        "empty.avi": "the file is empty",
        "folder": "the folder holds no files",
        "pipe.avi": "not a regular file",
    }.items():
        with pytest.raises(InputError) as caught:
            content_hash(tmp_path / name)
        assert caught.value.reason == reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    make_tree(tmp_path, "a.avi")
    (tmp_path / "a.avi").chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        content_hash(tmp_path / "a.avi")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0.avi", "a zero byte is in its name"),
        ("a\ud800.avi", "its name is not text that a file system takes"),
        ("a" * 300, "file name too long"),
    ],
)
def test_names_that_no_file_can_have(tmp_path, name, reason):
    with pytest.raises(InputError) as caught:
        content_hash(tmp_path / name)
    assert caught.value.reason == reason
