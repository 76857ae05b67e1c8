"""Frames of many clips one behind the other, in memory or, where they are too many, in a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vidfuse.errors import UserError, reason_of
from vidfuse.system import free_memory

MEMORY_SHARE = 0.5
"""Frames that would take more than this share of the free memory go to a file."""


class Pile:
    """Takes features of clips as they come, each once, and gives all of them as one array.

    In memory they lie in one block. A file is mapped: its pages are read when they are asked for
    and given back when memory is short, so that the features may be larger than it. Without a
    `path` the file has no name: it is gone when nothing maps it, however the process ends.

    Args:
        clips: About how many clips will come.
        folder: Where a file may be made; None keeps everything in memory.
        path: The file, for other processes to map too; memory is not used then.
    """

    def __init__(self, clips: int, folder: Path | None = None, path: Path | None = None) -> None:
        self.clips = clips
        self.folder = folder
        self.path = path
        self.count = 0
        self._memory: NDArray[np.float16] | None = None
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def mapped(self) -> bool:
        """Whether the frames are in a file."""
        return self._file is not None

    def append(self, features: NDArray[np.float16]) -> int:
        """Take over the frames of a clip ``[T, D, g, g]``; returns the place of the first.

        Raises:
            UserError: Their shape is not that of the others, or there is no room for them.
        """
        if self._memory is None and self._file is None:
            self._begin(features)
        if features.shape[1:] != self._shape:
            shapes = sorted({self._shape, features.shape[1:]})
            raise UserError(f"features of different shapes cannot be batched: {shapes}")
        first, self.count = self.count, self.count + len(features)
        if self._file is not None:
            try:
                self._file.write(np.ascontiguousarray(features).data)
            except OSError as error:
                raise self._no_room(reason_of(error)) from error
            return first
        assert self._memory is not None
        if self.count > len(self._memory):
            self._memory.resize((max(self.count, 2 * first), *self._shape), refcheck=False)
        self._memory[first : self.count] = features
        return first

    def array(self) -> NDArray[np.float16]:
        """All frames ``[F, D, g, g]``, F at least 1; nothing can be appended any more."""
        if self._file is None:
            assert self._memory is not None
            return self._memory[: self.count]
        try:
            self._file.flush()
        except OSError as error:
            raise self._no_room(reason_of(error)) from error
        return np.memmap(self._file, np.float16, "r+", shape=(self.count, *self._shape))

    def _begin(self, features: NDArray[np.float16]) -> None:
        """Choose between memory and file, by the first clip."""
        self._shape = features.shape[1:]
        size, free = self.clips * features.nbytes, free_memory()
        if self.path is None and (self.folder is None or size <= MEMORY_SHARE * free):
            self._memory = np.empty((self.clips * len(features), *self._shape), np.float16)
            return
        try:
            if self.path is not None:
                self._file = self.path.open("w+b")
                return
            assert self.folder is not None
            self.folder.mkdir(parents=True, exist_ok=True)
            if size > (room := shutil.disk_usage(self.folder).free):
                raise self._no_room(f"{size / 1e9:.1f} GB, and {room / 1e9:.1f} GB are free")
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # see `array`
        except OSError as error:
            raise self._no_room(reason_of(error)) from error

    def _no_room(self, why: str) -> UserError:
        place = self.folder if self.path is None else self.path.parent
        reason = "" if self.path is not None else ", which memory is too small for,"
        return UserError(
            f"the features side by side{reason} cannot be kept in {place} ({why})",
            "Make room there, choose a smaller --grid or fewer --frames, or another place: "
            + ("--cache." if self.path is None else "--out."),
        )


def map_frames(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """The frames of a pile's file; processes that map it share its memory."""
    return np.memmap(path, np.float16, "r+", shape=shape)
