"""A folder is held by one process at a time, whatever becomes of the others."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vidfuse
from vidfuse.errors import UserError
from vidfuse.runs import LOCK, alone_in

HOLD = """
import sys
from pathlib import Path
from vidfuse.runs import alone_in
with alone_in(Path(sys.argv[1]), "another one"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[bytes]:
    """A process that holds the folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(vidfuse.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def refused(folder: Path) -> None:
    with (
        pytest.raises(UserError, match=f"another one is at work in {folder}") as error,
        alone_in(folder, "another one"),
    ):
        pass
    assert "--out" in str(error.value.hint)


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        refused(tmp_path)
        process.communicate()
    with alone_in(tmp_path, "another one"):
        refused(tmp_path)
    with alone_in(tmp_path, "another one"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    with alone_in(tmp_path, "another one"):
        pass


def test_the_file_stays(tmp_path: Path) -> None:
    """If it went, who has opened it already and who comes later would hold different files."""
    for _ in range(2):
        with alone_in(tmp_path, "another one"):
            pass
        assert (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()  # so that no file can be opened there
    with (
        pytest.raises(UserError, match=f"cannot write to {tmp_path}"),
        alone_in(tmp_path, "another one"),
    ):
        pass


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_drive_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    import fcntl

    def unknown(_file: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with alone_in(tmp_path, "another one"):
        pass
    with alone_in(tmp_path, "another one"):
        pass


def test_a_folder_in_which_nothing_was_made_is_removed_again(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    with alone_in(folder, "another one"):
        refused(folder)
    assert not list(tmp_path.iterdir())
    with alone_in(folder, "another one"):
        (folder / "kept").touch()
    assert sorted(each.name for each in folder.iterdir()) == [LOCK, "kept"]
    (folder / "kept").unlink()
    with alone_in(folder, "another one"):
        pass
    assert (folder / LOCK).exists(), "it was there before"


def test_a_refused_training_leaves_no_folder(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no groups"):
        vidfuse.train(dataset, out=out, head="mean", split="group")
    assert not out.exists()
