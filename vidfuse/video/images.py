"""Clips stored as frames: a folder with one file per frame, or one file with pages.

Files are taken in natural order (``2.png`` before ``10.png``), the i-th is on screen from
``i / fps`` seconds on, and only the chosen ones are opened. See ``image`` for how each becomes
RGB. A frame that cannot be read is replaced by its nearest readable neighbour, as a video player
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
from vidfuse.video.frames import Pixels
from vidfuse.video.image import count_pages, read_image
from vidfuse.video.sampling import FrameTimes, Times, on_screen

NEIGHBOURS = (0, -1, 1, -2, 2)  # where to look for a frame when one cannot be read
_NUMBERED = re.compile(r"(?P<series>.*?)(?P<number>\d+)\D*")
_QUOTED = re.compile(r"b['\"]|\\x|[^ -~]")  # what is in the file, in a library's message
_FLOW = re.compile(r"flow_[xyuv]", re.IGNORECASE)


class ImageReader:
    """One clip stored as frames; see ``Reader``.

    Args:
        path: A folder, or a frame file (each of its pages is a frame).
        fps: Frames per second.

    Raises:
        InputError: There are no frames in it, or it cannot be read.
    """

    name = "images"

    def __init__(self, path: str, fps: float) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.decoded = 0
        self.sources = self.find()
        self.frame_times = self.time(fps)

    def time(self, fps: float) -> FrameTimes:
        """The presentation times of the frames."""
        count = len(self.sources)
        return FrameTimes(np.arange(count) / fps, count / fps)

    def image(self, file: str, page: int) -> Pixels:
        """Read one frame; it may raise anything."""
        return read_image(file, page)

    def reason(self, error: Exception) -> str:
        """The reason why a frame cannot be read, without its path, which stands before it."""
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if text.startswith("cannot identify"):
            return "not a frame"
        return f"damaged, {type(error).__name__}" if _QUOTED.search(text) else text[:120]

    def find(self) -> list[tuple[str, int]]:
        """Each frame's file and page, in order."""
        if not os.path.isdir(self.path):
            try:
                return [(self.path, page) for page in range(count_pages(self.path))]
            except Exception as error:  # see _try
                raise InputError(self.path, self.reason(error)) from error
        try:
            names = list_frames(self.path)
        except OSError as error:
            raise InputError(self.path, describe_os_error(error)) from error
        if not names:
            raise InputError(
                self.path, "no frame in this folder", "Frames are files such as 0001.png."
            )
        self.warnings += sequence_warnings(names)
        return [(os.path.join(self.path, name), 0) for name in names]

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pixels], Times]:
        """The frames on screen at ``times`` (not decreasing), and their presentation times."""
        indices = on_screen(self.frame_times.times, times)
        known: dict[int, tuple[int, Pixels]] = {}
        shapes = set()
        for index in np.unique(indices).tolist():
            found, image = self._nearest(index)
            shapes.add(image.shape)
            known[index] = found, fit(image)
        if len(shapes) > 1:
            self.warnings.append("its frames differ in size")
        pixels = [known[int(i)][1] for i in indices]
        return pixels, self.frame_times.times[[known[int(i)][0] for i in indices]]

    def _nearest(self, index: int) -> tuple[int, Pixels]:
        """The frame at ``index``, or the nearest that can be read, after its own index."""
        reasons: list[str] = []
        for step in NEIGHBOURS:
            if not 0 <= index + step < len(self.sources):
                continue
            image = self._try(index + step)
            if not isinstance(image, str):
                if reasons:
                    self.warnings.append(f"{reasons[0]}; a frame beside it was used")
                return index + step, image
            reasons.append(image)
        raise InputError(
            self.path, f"{reasons[0]}, nor can those beside it", "Copy or extract the frames again."
        )

    def _try(self, index: int) -> Pixels | str:
        """A frame, or the reason why it cannot be read."""
        file, page = self.sources[index]
        if not os.path.isfile(file):  # a pipe would be waited for
            return f"{os.path.basename(file)} is not a regular file"
        self.decoded += 1
        try:
            return self.image(file, page)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - on damaged files Pillow raises all kinds
            name = os.path.basename(file) + (f", page {page + 1}" if page else "")
            return f"{name} cannot be read ({self.reason(error)})"

    def close(self) -> None:
        """Release nothing: files are open only while they are read."""


def list_frames(folder: str) -> list[str]:
    """Names of the frames in a folder, in natural order.

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


def sequence_warnings(names: list[str]) -> list[str]:
    """Warnings that frames may not be one complete sequence, one line each.

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
        return [f"frames of several series are read one after the other: {found}"]
    kinds = Counter(os.path.splitext(name)[1].lower() for name in names)
    if len(kinds) > 1:
        found = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        return [f"frames of several kinds are read as one sequence: {found}"]
    steps = np.diff([int(match["number"]) for match in numbered])
    gaps = np.flatnonzero(steps > 1)
    # Frames taken at intervals are numbered with the same step throughout.
    if len(gaps) and np.median(steps) == 1:
        missing = int((steps[gaps] - 1).sum())
        return [f"{missing} numbers are missing, the first after {names[int(gaps[0])]}"]
    return []
