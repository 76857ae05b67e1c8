"""What a clip's bytes are, whatever the file is called and wherever it lies."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from vidfuse.data.files import describe_os_error, is_ignored
from vidfuse.errors import InputError


def content_hash(path: Path) -> str:
    """Sha256 of a video's content.

    Args:
        path: A file, or a folder of frames: there the ordered names and bytes of its files
            count, subfolders and hidden files do not.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: The path is missing, unreadable, empty, or neither file nor folder.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return _folder_hash(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(path, "not a regular file")
        if status.st_size == 0:
            raise InputError(path, "the file is empty")
        return _file_hash(path)
    except OSError as error:
        raise InputError(path, describe_os_error(error)) from None
    except UnicodeEncodeError:
        raise InputError(path, "its name is not text that a file system takes") from None
    except ValueError:  # the only other one
        raise InputError(path, "a zero byte is in its name") from None


def _file_hash(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_hash(folder: Path) -> str:
    total = hashlib.sha256()
    with os.scandir(folder) as entries:
        files = {e.name: e.path for e in entries if e.is_file() and not is_ignored(e.name)}
    if not files:
        raise InputError(folder, "the folder holds no files")
    for name in sorted(files):
        total.update(f"{name}\0{_file_hash(files[name])}\n".encode(errors="surrogateescape"))
    return total.hexdigest()
