"""Stamps of files and folders, which change when their content does."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

# A file that is written again within one tick of the file system's clock keeps its stamp, so what
# changed this recently may change unnoticed. Local file systems tick every 10 ms at most.
TICK_NS = 100_000_000


class Stamp(NamedTuple):
    """Size, times in nanoseconds and inode: one of them changes when a file does."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @property
    def settled(self) -> bool:
        """True where the file last changed long enough ago for another change to show."""
        return time.time_ns() - self.ctime > TICK_NS


def settled_stamp(path: Path) -> Stamp | None:
    """As `stamp_of`; of a file that changed just now after a while, so that a change will show."""
    stamp = stamp_of(path)
    if stamp is None or stamp.settled or stamp.ctime > time.time_ns():
        return stamp
    time.sleep(TICK_NS / 1e9)
    return stamp_of(path)


def stamp_of(path: Path) -> Stamp | None:
    """A file's stamp, or that of all files in a folder; None where there is nothing to read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _folder_stamp(path)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _folder_stamp(folder: Path) -> Stamp | None:
    """Sizes and latest times; instead of the inode, a digest of all names and stamps."""
    with os.scandir(folder) as entries:
        files = {entry.name: entry.stat() for entry in entries if entry.is_file()}
    if not files:
        return None
    digest = hashlib.sha256()
    for name, status in sorted(files.items()):
        own = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(os.fsencode(name) + repr(own).encode())
    return Stamp(
        sum(status.st_size for status in files.values()),
        max(status.st_mtime_ns for status in files.values()),
        max(status.st_ctime_ns for status in files.values()),
        int.from_bytes(digest.digest()[:8], signed=True),
    )
