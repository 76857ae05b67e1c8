"""Names for the files that a folder gets, one for each video."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from vidfuse.atomic import longest_name

NUMBERING = 8  # bytes for the number in a name


class FileNames:
    """Names for the files of one folder: none comes twice, whatever the case of its letters.

    Args:
        folder: Where the files will be.
        suffix: What their names end in.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self._suffix = suffix
        self._room = longest_name(folder) - len(suffix) - NUMBERING
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()

    def free(self, stem: str, end: str = "") -> str:
        """The next name: ``stem`` and ``end``, or the same and ``~2``, ``~3``, …

        Args:
            stem: Of the video's name; it is shortened to what the file system takes.
            end: What is never cut off.
        """
        encoded, room = os.fsencode(stem), self._room - len(os.fsencode(end))
        if len(encoded) > room:
            stem = encoded[:room].decode(errors="ignore")
        stem += end
        name, key = stem, stem.lower()
        while name.lower() in self._taken:
            self._counts[key] += 1
            name = f"{stem}~{self._counts[key] + 1}"
        self._taken.add(name.lower())
        return name + self._suffix
