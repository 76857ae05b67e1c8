"""Inputs that come over time: a list that somebody is still writing, a folder that fills up."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TypeVar

from vidfuse.data.files import walk_videos
from vidfuse.errors import InputError

POLL_SECONDS = 0.25  # between two scans of a folder
QUIET_SECONDS = 1.0  # a file that did not change for so long is finished
AHEAD = 256  # items read before anybody asks for them
WAKE_SECONDS = 1.0  # Windows notices Ctrl-C only between two waits

Item = TypeVar("Item")


def as_it_comes(items: Iterable[Item]) -> Iterator[Item | None]:
    """The items, and None wherever the next one is not there yet.

    They are taken from their source in a thread. Whoever reads standard input there must take
    care that it is not the buffered ``sys.stdin``, whose lock would be held when Python ends.

    Raises:
        Exception: What the source raises.
    """
    queue: Queue[tuple[Item] | Exception | None] = Queue(AHEAD)

    def take() -> None:
        try:
            for item in items:
                queue.put((item,))
            queue.put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the items are taken
            queue.put(error)

    Thread(target=take, name="inputs", daemon=True).start()
    while True:
        if queue.empty():
            yield None
        try:
            found = queue.get(timeout=WAKE_SECONDS)
        except Empty:
            continue
        if found is None:
            return
        if isinstance(found, Exception):
            raise found
        yield found[0]


@dataclass(slots=True)
class _Sight:
    """State of a file, since when (monotonic seconds), and whether it was yielded."""

    content: tuple[int, ...]
    since: float
    yielded: bool = False


def watch(
    folder: Path, poll: float = POLL_SECONDS, quiet: float = QUIET_SECONDS
) -> Iterator[Path | InputError | None]:
    """The videos in a folder, and then those that come into it, for ever.

    A video is yielded once it is finished: when its size and modification time have stayed the
    same for a while. Each is yielded once, and again if it is written anew. Subfolders count, as
    do folders of frames.

    Args:
        folder: What is watched, by scanning it again and again, which works on every file system.
        poll: Seconds between two scans.
        quiet: Seconds without a change after which a file is finished.

    Yields:
        Videos; what cannot be read, once; and None after each scan.

    Raises:
        InputError: The folder cannot be read (any more).
    """
    known: dict[Path, _Sight] = {}
    told: set[str] = set()
    while True:
        now = time.monotonic()
        problems: list[InputError] = []
        there: dict[Path, _Sight] = {}
        for path in walk_videos(folder, problems, growing=True):
            content = _sizes_and_times(path)
            before = known.get(path)
            same = before is not None and before.content == content
            there[path] = before if before and same else _Sight(content, now)
        known = there  # what is gone may come again
        for path, sight in known.items():
            if not sight.yielded and now - sight.since >= quiet:
                sight.yielded = True
                yield path
        for problem in problems:
            if problem.path not in told:
                told.add(problem.path)
                yield problem
        yield None
        time.sleep(poll)


def _sizes_and_times(path: Path) -> tuple[int, ...]:
    """Sizes and times, which change while a file or frame folder is written; () if it is gone."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size, status.st_mtime_ns
        with os.scandir(path) as entries:
            every = sorted((entry.name, entry.stat()) for entry in entries)
    except OSError:
        return ()
    return tuple(n for _, each in every for n in (each.st_size, each.st_mtime_ns))
