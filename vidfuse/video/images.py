"""Clips stored as pictures: a folder with one file per frame, or one file with pages.

Files are taken in natural order (``2.png`` before ``10.png``), the i-th is on screen from
``i / fps`` seconds on, and only the chosen ones are opened. See ``picture`` for how each becomes
RGB. A picture that cannot be read is replaced by its nearest readable neighbour, as a video player
goes on showing the last good frame, and a warning names it.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import numpy as np

from vidfuse.data.files import FRAME_EXTENSIONS, describe_os_error, is_ignored, natural_key
from vidfuse.errors import InputError, UserError
from vidfuse.video.decoder import Fit, unchanged
from vidfuse.video.frames import Pictures
from vidfuse.video.picture import count_pages, read_picture
from vidfuse.video.sampling import Timeline, Times, on_screen

NEIGHBOURS = (0, -1, 1, -2, 2)  # where to look for a picture when one cannot be read
_NUMBERED = re.compile(r"(?P<series>.*?)(?P<number>\d+)\D*")
_QUOTED = re.compile(r"b['\"]|\\x|[^ -~]")  # what is in the file, in a library's message
_FLOW = re.compile(r"flow_[xyuv]", re.IGNORECASE)


class PictureReader:
    """One clip stored as pictures; see ``Reader``.

    Args:
        path: A folder, or a picture file (each of its pages is a frame).
        fps: Pictures per second.

    Raises:
        InputError: There are no pictures in it, or it cannot be read.
    """

    name = "images"

    def __init__(self, path: str, fps: float) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.decoded = 0
        self.sources = self.find()
        self.timeline = self.time(fps)

    def time(self, fps: float) -> Timeline:
        """When each picture is shown."""
        count = len(self.sources)
        return Timeline(np.arange(count) / fps, count / fps)

    def picture(self, file: str, page: int) -> Pictures:
        """Read one picture; it may raise anything."""
        return read_picture(file, page)

    def reason(self, error: Exception) -> str:
        """Why a picture cannot be read, without its path, which stands before it anyway."""
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if text.startswith("cannot identify"):
            return "not a picture"
        return f"damaged, {type(error).__name__}" if _QUOTED.search(text) else text[:120]

    def find(self) -> list[tuple[str, int]]:
        """Each picture's file and page, in order."""
        if not os.path.isdir(self.path):
            try:
                return [(self.path, page) for page in range(count_pages(self.path))]
            except Exception as error:  # see _try
                raise InputError(self.path, self.reason(error)) from error
        try:
            names = list_pictures(self.path)
        except OSError as error:
            raise InputError(self.path, describe_os_error(error)) from error
        if not names:
            raise InputError(
                self.path, "no picture in this folder", "Frames are files such as 0001.png."
            )
        self.warnings += doubts(names)
        return [(os.path.join(self.path, name), 0) for name in names]

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pictures], Times]:
        """The pictures on screen at ``times`` (not decreasing), and their presentation times."""
        indices = on_screen(self.timeline.times, times)
        known: dict[int, tuple[int, Pictures]] = {}
        shapes = set()
        for index in np.unique(indices).tolist():
            found, picture = self._nearest(index)
            shapes.add(picture.shape)
            known[index] = found, fit(picture)
        if len(shapes) > 1:
            self.warnings.append("its pictures differ in size")
        pictures = [known[int(i)][1] for i in indices]
        return pictures, self.timeline.times[[known[int(i)][0] for i in indices]]

    def _nearest(self, index: int) -> tuple[int, Pictures]:
        """The picture at ``index``, or the nearest that can be read, and where it is."""
        reasons: list[str] = []
        for step in NEIGHBOURS:
            if not 0 <= index + step < len(self.sources):
                continue
            picture = self._try(index + step)
            if not isinstance(picture, str):
                if reasons:
                    self.warnings.append(f"{reasons[0]}; a picture beside it was used")
                return index + step, picture
            reasons.append(picture)
        raise InputError(
            self.path, f"{reasons[0]}, nor can those beside it", "Copy or extract the frames again."
        )

    def _try(self, index: int) -> Pictures | str:
        """A picture, or why it cannot be read."""
        file, page = self.sources[index]
        if not os.path.isfile(file):  # a pipe would be waited for
            return f"{os.path.basename(file)} is not a regular file"
        self.decoded += 1
        try:
            return self.picture(file, page)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # on damaged files Pillow's plugins raise all kinds
            name = os.path.basename(file) + (f", page {page + 1}" if page else "")
            return f"{name} cannot be read ({self.reason(error)})"

    def close(self) -> None:
        """There is nothing to release: files are open only while they are read."""


def list_pictures(folder: str) -> list[str]:
    """Names of the pictures in a folder, in natural order.

    Hidden and system files are left out, and so is optical flow (``flow_x_00001.jpg``), which
    some tools write among the frames.

    Raises:
        OSError: The folder cannot be read.
    """
    names = [
        name
        for name in os.listdir(folder)
        if not is_ignored(name) and os.path.splitext(name)[1].lower() in FRAME_EXTENSIONS
    ]
    frames = [name for name in names if not _FLOW.match(name)]
    return sorted(frames or names, key=natural_key)


def doubts(names: list[str]) -> list[str]:
    """What suggests that pictures are not one complete sequence, one line each.

    Args:
        names: File names, in order.
    """
    matches = [_NUMBERED.fullmatch(os.path.splitext(name)[0]) for name in names]
    numbered = [match for match in matches if match]
    series = Counter(match["series"] for match in numbered)
    if len(numbered) < len(names):
        return []
    if 1 < len(series) <= 4 and min(series.values()) > 1:
        found = ", ".join(f"{n} named {name}…" for name, n in series.items())
        return [f"pictures of several series are read one after the other: {found}"]
    kinds = Counter(os.path.splitext(name)[1].lower() for name in names)
    if len(kinds) > 1:
        found = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        return [f"pictures of several kinds are read as one sequence: {found}"]
    steps = np.diff([int(match["number"]) for match in numbered])
    gaps = np.flatnonzero(steps > 1)
    # Frames taken at intervals are numbered with the same step throughout.
    if len(gaps) and np.median(steps) == 1:
        missing = int((steps[gaps] - 1).sum())
        return [f"{missing} numbers are missing, the first after {names[int(gaps[0])]}"]
    return []
