"""Which content a path holds: hashes of files, remembered so that a second run reads no video."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from vidfuse.data.clip import Clip
from vidfuse.data.hashing import content_hash
from vidfuse.data.stamp import Stamp, stamp_of
from vidfuse.errors import InputError
from vidfuse.features.ahead import ahead
from vidfuse.progress import Progress
from vidfuse.system import cores

ROWS_AT_ONCE = 256
HASHED_AHEAD = 4  # files for each thread

Result = TypeVar("Result")


class Content(NamedTuple):
    """What a path holds.

    Attributes:
        digest: Its content hash.
        stamp: What it had before and after it was read; None where that differed.
        settled: Whether every later change shows in the stamp.
    """

    digest: str
    stamp: Stamp | None
    settled: bool


class ContentIndex:
    """Content hashes of files, remembered by path, size, mtime, ctime and inode.

    Of a frame folder, those of all its files are remembered.

    The index is only a shortcut: where it cannot be read or written, files are hashed again, and
    a damaged one is begun anew. Any number of processes share it.

    Args:
        folder: Where its database lies; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "index.sqlite"

    def contents(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Content | InputError]]:
        """The content of each path, or why it has none: each once, in the order given."""
        stamps = {path: stamp_of(path) for path in paths}
        known = self._recall(stamps)
        news: list[tuple[str | int, ...]] = []
        unknown = [path for path in stamps if path not in known]
        count = min(8, cores())
        try:
            with (
                ThreadPoolExecutor(count) as threads,
                closing(ahead(threads, _content, unknown, HASHED_AHEAD * count)) as found,
            ):
                for path, stamp in stamps.items():
                    if path in known:
                        yield path, Content(known[path], stamp, settled=True)
                        continue
                    content = next(found)
                    if not isinstance(content, InputError) and content.stamp and content.settled:
                        news.append((_key(path), *content.stamp, content.digest))
                    if len(news) >= ROWS_AT_ONCE:
                        self._remember(news)
                    yield path, content
        finally:
            self._remember(news)

    def look_at(
        self, paths: Iterable[Path], progress: Progress
    ) -> dict[Path, Content | InputError]:
        """The content of each path, or why it has none; reading them is shown as work."""
        paths = list(dict.fromkeys(paths))
        found = {}
        progress.start("Looking at clips", len(paths))
        try:
            for path, content in self.contents(paths):
                found[path] = content
                progress.advance()
        finally:
            progress.finish()
        return found

    def hashes(self, paths: Iterable[Path]) -> Iterator[tuple[Path, str | InputError]]:
        """The content hash of each path, or why it has none: each once, in the order given."""
        for path, content in self.contents(paths):
            yield path, content if isinstance(content, InputError) else content.digest

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
        ((_, now),) = self.contents([path])
        if isinstance(now, InputError):
            raise now
        if stamp is None or stamp != now.stamp:
            hint = "Run the same command again when nothing writes to it any more."
            raise InputError(path, "it changed while it was read", hint)
        return now

    def hash(self, path: Path) -> str:
        """The content hash of one path.

        Raises:
            InputError: It cannot be read.
        """
        ((_, value),) = self.hashes([path])
        if isinstance(value, InputError):
            raise value
        return value

    def _recall(self, stamps: Mapping[Path, Stamp | None]) -> dict[Path, str]:
        """The hashes that are known of files that have not changed."""

        def look_up(database: sqlite3.Connection) -> dict[Path, str]:
            found = {}
            for path, stamp in stamps.items():
                row = (
                    stamp
                    and database.execute(
                        "SELECT hash FROM content "
                        "WHERE path = ? AND size = ? AND mtime = ? AND ctime = ? AND inode = ?",
                        (_key(path), *stamp),
                    ).fetchone()
                )
                if row:
                    found[path] = str(row[0])
            return found

        return self._with_database(look_up) or {}

    def _remember(self, rows: list[tuple[str | int, ...]]) -> None:
        """Write some rows at once: short transactions, since other processes wait for them."""
        if rows:
            insert = "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?)"
            self._with_database(lambda database: database.executemany(insert, rows))
        rows.clear()

    def _with_database(self, action: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Do something with the database, in one transaction; None where that cannot be."""
        if self._file is None:
            return None
        for _ in range(2):
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with closing(sqlite3.connect(self._file, timeout=30)) as database, database:
                    # Lost with the power it is made anew, so nobody waits for the disk.
                    database.execute("PRAGMA synchronous = OFF")
                    database.execute(
                        "CREATE TABLE IF NOT EXISTS content (path TEXT PRIMARY KEY, "
                        "size INT, mtime INT, ctime INT, inode INT, hash TEXT)"
                    )
                    return action(database)
            except (sqlite3.OperationalError, OSError):
                return None  # locked for long, a full disk, a folder that cannot be written
            except sqlite3.DatabaseError:  # damaged: begin anew
                try:
                    self._file.unlink(missing_ok=True)
                    # The journal of the damaged one must not be played into the new one.
                    self._file.with_name(f"{self._file.name}-journal").unlink(missing_ok=True)
                except OSError:
                    return None
        return None


def entry_key(content: str, clip: Clip, mirrored: bool = False) -> str:
    """Name of a clip's entry in the cache: its content, segment and view, not its path."""
    text = f"{content} {clip.start or 0:.6f} {'end' if clip.end is None else f'{clip.end:.6f}'}"
    if mirrored:
        text += " mirrored"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _key(path: Path) -> str:
    """A path as text that a database takes, also where it is no Unicode."""
    return os.fsencode(os.path.abspath(path)).hex()


def _content(path: Path) -> Content | InputError:
    """What a path holds, by reading it; why it cannot be read, where it cannot."""
    before = stamp_of(path)
    settled = before is not None and before.settled  # asked before, since reading takes its time
    try:
        digest = content_hash(path)
    except InputError as error:
        return error
    return Content(digest, before if before == stamp_of(path) else None, settled)
