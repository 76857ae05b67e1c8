"""What is written is whole, or what was there stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidfuse.atomic import append_line, write_whole
from vidfuse.errors import UnwritableError

LIMIT = 1000
IN_A_SMALL_ROOM = f"""
import resource, sys
from pathlib import Path
from vidfuse.atomic import append_line, write_whole
from vidfuse.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
try:
    {{action}}
except UserError as error:
    print(error)
"""


def in_a_small_room(action: str) -> str:
    """What is said of an action in a process whose files may have ``LIMIT`` bytes."""
    code = IN_A_SMALL_ROOM.format(action=action)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_a_file_is_replaced_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_whole(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    write_whole(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


def test_the_longest_name_that_there_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".json")  # 255 bytes
    write_whole(path, b"1")
    assert path.read_bytes() == b"1"


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "results.json"
    write_whole(path, "before")
    told = in_a_small_room(f"write_whole(Path({str(path)!r}), 'x' * 5000, 'Make room.')")
    assert told == f"cannot write {path} ({os.strerror(27)})\nMake room.\n"
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "metrics.jsonl"
    append_line(path, "x" * (LIMIT - 10))
    told = in_a_small_room(f"append_line(Path({str(path)!r}), 'y' * 20)")
    assert told.startswith(f"cannot write {path} (")
    assert path.read_text() == "x" * (LIMIT - 10) + "\n"
    append_line(path, "z")
    assert path.read_text().splitlines()[1:] == ["z"]


def test_a_reason_is_given_where_the_system_s_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As numpy's ``50 requested and 10 written``, an OSError without a number."""

    def short(_path: Path, _content: bytes) -> int:
        raise OSError("50 requested and 10 written")

    monkeypatch.setattr(Path, "write_bytes", short)
    with pytest.raises(UnwritableError, match="50 requested and 10 written"):
        write_whole(tmp_path / "file", b"content")


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def interrupted(path: Path, content: bytes) -> int:
        write_bytes(path, content[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())
