"""What is said of an error, and the exit code that goes with it."""

from __future__ import annotations

import errno
import os

import pytest

from vidfuse.cli.failures import explain
from vidfuse.errors import UserError

# error of the system → what to do about it
HINTS = {
    errno.ENOSPC: "Check that the disk has room.",
    errno.EDQUOT: "Check that the disk has room.",
    errno.EFBIG: "Check the limit on the size of files: ulimit -f",
    errno.EACCES: "Check that the file may be read and written.",
    errno.EROFS: "Check that the file may be read and written.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or use fewer --workers.",
    errno.ELOOP: "Check the symbolic links on the way: some lead back to themselves.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@pytest.mark.parametrize("number", HINTS)
def test_an_error_of_the_system_names_the_file_and_what_fits_it(number: int) -> None:
    text, code = explain(OSError(number, os.strerror(number), "some/file"))
    assert text == f"Error: some/file: {os.strerror(number)}\n{HINTS[number]}"
    assert code == 2


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ETIMEDOUT])
def test_others_are_not_blamed_on_the_disk(number: int) -> None:
    assert explain(OSError(number, os.strerror(number)))[0] == f"Error: {os.strerror(number)}"


def test_names_in_errors_are_not_obeyed() -> None:
    odd = "a\x1b[2J\nb.mp4"
    assert explain(UserError(f"{odd}: bad", "Do this.\nDo that."))[0] == (
        r"Error: a\x1b[2J\nb.mp4: bad" "\nDo this.\nDo that."
    )
    assert r"a\x1b[2J\nb.mp4" in explain(FileNotFoundError(errno.ENOENT, "gone", odd))[0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), ""), (MemoryError("Unable to allocate 8 TiB"), " (Unable to allocate 8 TiB)")],
)
def test_want_of_memory_is_no_bug(error: MemoryError, reason: str) -> None:
    text, code = explain(error)
    assert text.splitlines()[0] == f"Error: there is not enough memory{reason}"
    assert "fewer --workers" in text
    assert code == 2


def test_a_bug_has_a_code_of_its_own() -> None:
    text, code = explain(ZeroDivisionError("oops\x1b"))
    assert code == 70
    assert text.startswith(r"Error: a bug in vidfuse (ZeroDivisionError: oops\x1b)")
