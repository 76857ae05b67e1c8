"""Which content a path holds: hashes of files, remembered so that a second run reads no video."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.hashing import content_hash
from vidfuse.errors import InputError

Stamp = tuple[int, int, int, int]
ROWS_AT_ONCE = 256


class ContentIndex:
    """Content hashes of files, remembered by path, size, mtime, ctime and inode.

    The index is only a shortcut: where it cannot be read or written, files are hashed again.

    Args:
        folder: Where its database lies; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                folder / "index.sqlite", timeout=30, check_same_thread=False
            )
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS content "
                "(path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, hash TEXT)"
            )
        except (sqlite3.Error, OSError):
            self._database = None

    def hashes(self, paths: Iterable[Path]) -> Iterator[tuple[Path, str | InputError]]:
        """The content hash of each path, or why it has none, in the order given."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            waiting: list[tuple[Path, Stamp | None, str | Future[str]]] = []
            for path in paths:
                stamp = _stamp(path)
                known = self._recall(path, stamp)
                if known is None:
                    waiting.append((path, stamp, threads.submit(content_hash, path)))
                else:
                    waiting.append((path, None, known))
            news: list[tuple[str | int, ...]] = []
            for path, stamp, answer in waiting:
                try:
                    value = answer if isinstance(answer, str) else answer.result()
                except InputError as error:
                    yield path, error
                    continue
                if stamp is not None and stamp == _stamp(path):  # unchanged while it was read
                    news.append((_key(path), *stamp, value))
                    if len(news) >= ROWS_AT_ONCE:
                        self._remember(news)
                yield path, value
            self._remember(news)

    def hash(self, path: Path) -> str:
        """The content hash of one path.

        Raises:
            InputError: It cannot be read.
        """
        ((_, value),) = self.hashes([path])
        if isinstance(value, InputError):
            raise value
        return value

    def _recall(self, path: Path, stamp: Stamp | None) -> str | None:
        if self._database is None or stamp is None:
            return None
        try:
            row = self._database.execute(
                "SELECT hash FROM content "
                "WHERE path = ? AND size = ? AND mtime = ? AND ctime = ? AND inode = ?",
                (_key(path), *stamp),
            ).fetchone()
        except sqlite3.Error:
            return None
        return str(row[0]) if row else None

    def _remember(self, rows: list[tuple[str | int, ...]]) -> None:
        """Write some rows at once: short transactions, since other processes wait for them."""
        if self._database is not None and rows:
            try:
                with self._database:
                    self._database.executemany(
                        "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?)", rows
                    )
            except sqlite3.Error:
                self._database = None  # such as a full disk, or a folder that cannot be written
        rows.clear()


def entry_key(content: str, clip: Clip) -> str:
    """Name of a clip's entry in the cache: its content and segment, not its path."""
    text = f"{content} {clip.start or 0:.6f} {'end' if clip.end is None else f'{clip.end:.6f}'}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _key(path: Path) -> str:
    return os.fsencode(os.path.abspath(path)).hex()


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file does; None for folders, whose files may change unseen."""
    try:
        stat = path.stat()
    except OSError:
        return None
    if path.is_dir():
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
