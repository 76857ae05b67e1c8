"""The content of a clip: its hash, a stamp that changes when the content does, and an index of
hashes, so that a second run reads no video.

Neither hash nor stamp depends on the name of a file or its folder.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vidfuse.data.files import describe_os_error, is_ignored
from vidfuse.errors import InputError
from vidfuse.machine import cores
from vidfuse.progress import Reporter

# A file that is written again within one tick of the file system's clock keeps its stamp, so what
# changed this recently may change unnoticed. Local file systems tick every 10 ms at most.
TICK_NS = 100_000_000
ROWS_AT_ONCE = 256
SELECT = (
    "SELECT hash FROM content WHERE path = ? AND size = ? AND mtime = ? AND ctime = ? AND inode = ?"
)
INSERT = "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?)"
CHANGED = "it changed while it was read"
RUN_AGAIN = "Run the same command again when nothing writes to it any more."
NO_STAMP = (-1, -1, -1, -1)  # of what cannot be read, and is not known
Row = tuple[Any, ...]


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
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(path, describe_os_error(error)) from None
    except UnicodeEncodeError:
        raise InputError(path, "its name is not text that a file system takes") from None
    except ValueError:  # the only other one
        raise InputError(path, "a zero byte is in its name") from None


def _folder_hash(folder: Path) -> str:
    total = hashlib.sha256()
    with os.scandir(folder) as entries:
        files = {e.name: e.path for e in entries if e.is_file() and not is_ignored(e.name)}
    if not files:
        raise InputError(folder, "the folder holds no files")
    for name in sorted(files):
        with open(files[name], "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


class Content(NamedTuple):
    """Content of a path.

    Attributes:
        digest: Its content hash.
        stamp: What it had before and after it was read; None where that differed.
        settled: Whether every later change shows in the stamp.
    """

    digest: str
    stamp: Stamp | None
    settled: bool


@dataclass(frozen=True)
class ContentIndex:
    """Content hashes of files, remembered by path, size, mtime, ctime and inode.

    Of a frame folder, those of all its files are remembered.

    The index is only a shortcut: where it cannot be read or written, files are hashed again, and
    a damaged one is begun anew. Any number of processes share it.

    Attributes:
        folder: Where its database lies; None remembers nothing.
    """

    folder: Path | None

    def contents(
        self, paths: Iterable[Path], reporter: Reporter | None = None
    ) -> dict[Path, Content | InputError]:
        """The content of each path, or why it has none.

        Args:
            paths: Files and frame folders. Those that are not known are read.
            reporter: Receives progress updates.
        """
        stamps = {path: stamp_of(path) for path in paths}
        if reporter is not None:
            reporter.start("Reading clips", len(stamps))
        # Paths as text that a database takes, also where they are no Unicode.
        keys = {path: os.fsencode(os.path.abspath(path)).hex() for path in stamps}
        rows = [(keys[path], *(stamp or NO_STAMP)) for path, stamp in stamps.items()]
        found: dict[Path, Content | InputError] = {
            path: Content(row[0], stamp, settled=True)
            for (path, stamp), row in zip(stamps.items(), self._run(SELECT, rows), strict=True)
            if row is not None and stamp is not None
        }
        unknown = [path for path in stamps if path not in found]
        news: list[Row] = []
        threads = ThreadPoolExecutor(min(8, cores()))
        try:
            if reporter is not None:
                reporter.advance(len(found))
            for start in range(0, len(unknown), ROWS_AT_ONCE):
                part = unknown[start : start + ROWS_AT_ONCE]
                for path, content in zip(part, threads.map(_content, part), strict=True):
                    found[path] = content
                    if isinstance(content, Content) and content.stamp and content.settled:
                        news.append((keys[path], *content.stamp, content.digest))
                    if reporter is not None:
                        reporter.advance()
                # Short transactions, since other processes wait for them.
                self._run(INSERT, news)
                news = []
        finally:
            threads.shutdown(cancel_futures=True)
            if news:  # of work that was interrupted
                self._run(INSERT, news)
            if reporter is not None:
                reporter.finish()
        return {path: found[path] for path in stamps}

    def content_then(self, path: Path, content: Content, stamp: Stamp | None) -> Content:
        """The content that a path had while it was decoded.

        Args:
            path: What was decoded.
            content: What it held before.
            stamp: What it had before and after it was decoded; None where that differed.

        Raises:
            InputError: It cannot be read any more, or nobody can tell what was decoded.
        """
        if content.settled and stamp is not None and stamp == content.stamp:
            return content
        now = self.contents([path])[path]
        if isinstance(now, InputError):
            raise now
        if stamp is None or stamp != now.stamp:
            raise InputError(path, CHANGED, RUN_AGAIN)
        return now

    def _run(self, statement: str, rows: list[Row]) -> list[Row | None]:
        """Run a statement for each row, in one transaction; what it finds, or None."""
        nothing: list[Row | None] = [None] * len(rows)
        if self.folder is None:
            return nothing
        file = self.folder / "index.sqlite"
        for _ in range(2):
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with closing(sqlite3.connect(file, timeout=30)) as database, database:
                    # Lost with the power it is made anew, so nobody waits for the disk.
                    database.execute("PRAGMA synchronous = OFF")
                    database.execute(
                        "CREATE TABLE IF NOT EXISTS content (path TEXT PRIMARY KEY, "
                        "size INT, mtime INT, ctime INT, inode INT, hash TEXT)"
                    )
                    return [database.execute(statement, row).fetchone() for row in rows]
            except (sqlite3.OperationalError, OSError):
                return nothing  # locked for long, a full disk, a folder that cannot be written
            except sqlite3.DatabaseError:  # damaged: begin anew
                try:
                    file.unlink(missing_ok=True)
                    # The journal of the damaged one must not be played into the new one.
                    file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
                except OSError:
                    return nothing
        return nothing


def _content(path: Path) -> Content | InputError:
    """Read a path's content; returns the error where it cannot be read."""
    before = stamp_of(path)
    settled = before is not None and before.settled  # asked before, since reading takes its time
    try:
        digest = content_hash(path)
    except InputError as error:
        return error
    return Content(digest, before if before == stamp_of(path) else None, settled)
