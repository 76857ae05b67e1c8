"""Destinations of the files of ``predict --timeline``: nothing is lost that it did not make."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidfuse.atomic import ADVICE, make_writable
from vidfuse.data.file_names import FileNames
from vidfuse.errors import InputError, UserError

Identity = tuple[int, int] | str


class Destination:
    """One file, or a folder that gets a file for each video.

    A name without a suffix, one that ends with a slash, and that of a folder that is there, is a
    folder.

    Args:
        option: The one that names it, for messages.
        name: As the user gave it.
        overwrite: Whether files that are there are replaced; never those that are read.
    """

    def __init__(self, option: str, name: str, *, overwrite: bool) -> None:
        self.option = option
        self.path = Path(name).expanduser()
        slash = name.endswith(tuple(filter(None, (os.sep, os.altsep))))
        self.is_folder = slash or not self.path.suffix or self.path.is_dir()
        self.overwrite = overwrite
        self.suffix = self.path.suffix  # of the files in a folder: said where it is known
        self._names: FileNames | None = None
        self._read: set[Identity] = set()
        self._made: set[Identity] = set()

    def prepare(self, inputs: Sequence[Path | InputError] | None) -> None:
        """See, before the work, that all can be written, and keep the inputs from being replaced.

        Args:
            inputs: All of them; None where they come over time.

        Raises:
            UserError: A file is there already, or is an input.
            UnwritableError: The folder cannot be written.
        """
        videos = [
            Path(item.path) if isinstance(item, InputError) else item for item in inputs or ()
        ]
        self._read.update(map(_identity, videos))
        names = FileNames(self.path, self.suffix)
        files = [self.path / names.free(each.stem) for each in videos]
        for file in files if self.is_folder else [self.path]:
            if refusal := self._refusal(file):
                raise UserError(f"{self.option} {file}: {refusal[0]}", refusal[1])
        make_writable(self.path if self.is_folder else self.path.parent, ADVICE)

    def file_of(self, video: Path) -> Path:
        """The file of the next video in a folder, whether it can be written or not."""
        self._names = self._names or FileNames(self.path, self.suffix)
        return self.path / self._names.free(video.stem)

    def claim(self, file: Path, videos: Iterable[Path]) -> None:
        """See that a file can be written.

        Args:
            file: Which.
            videos: Those that it is of.

        Raises:
            InputError: It is there already, or is an input, or a video is what this run made.
        """
        for video in videos:
            self._read.add(_identity(video))
            if _identity(video) in self._made:
                raise InputError(video, "this run has made it")
            if refusal := self._refusal(file):
                raise InputError(video, f"{self.option} {file}: {refusal[0]}", refusal[1])

    def made(self, file: Path) -> None:
        """Keep in mind that a file is there because this run made it."""
        self._made.add(_identity(file))

    def _refusal(self, file: Path) -> tuple[str, str] | None:
        """Why a file cannot be written, and what to do; None where it can."""
        if _identity(file) in self._read:
            return "an input, which is never replaced", f"Name another place: {self.option}"
        if os.path.lexists(file) and not self.overwrite:
            return "there already", "Replace it: --overwrite"
        return None


def _identity(path: Path) -> Identity:
    """The identity of a file, the same by all its names."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # which is not there, or no name of a file
        return os.path.abspath(path)
    return status.st_dev, status.st_ino
