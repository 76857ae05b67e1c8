"""DICOM clips: one file with several frames, or a folder with one file per frame (a series).

Nothing of what a file says about the patient is read into a result, a message or a warning: texts
here are fixed, and pydicom's own, which may quote values, are not passed on. See ``dicom_pixels``
for how stored values become frames.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder

from vidfuse.data.files import is_ignored, natural_key
from vidfuse.data.multipage import is_dicom
from vidfuse.errors import InputError
from vidfuse.video.decoder import check_size, end_of
from vidfuse.video.dicom_pixels import to_rgb
from vidfuse.video.frames import Pixels
from vidfuse.video.images import ImageReader
from vidfuse.video.png import MOST_DEFLATED
from vidfuse.video.sampling import FrameTimes, Times

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


class DicomReader(ImageReader):
    """One DICOM clip; see ``Reader``.

    Args:
        path: A file, or the folder of a series.
        fps: Frames per second, where the files do not say.

    Raises:
        InputError: It is not DICOM, holds no frames or several series, or is compressed in a
            way that no installed package reads.
    """

    name = "dicom"

    def find(self) -> list[tuple[str, int]]:
        """Each frame's file and number, in order."""
        if os.path.isdir(self.path):
            self._headers = self._series()
            return [(file, 0) for file in self._headers]
        header = self._header(self.path)
        if header is None or "Rows" not in header:
            raise InputError(self.path, "not a DICOM file with frames")
        self._headers = {self.path: header}
        return [(self.path, i) for i in range(self._frame_count(self.path, header))]

    def _frame_count(self, file: str, header: Dataset) -> int:
        """The number of frames that a file states.

        Raises:
            InputError: It cannot have so many.
        """
        try:
            count = int(header.get("NumberOfFrames") or 1)
        except (TypeError, ValueError, OverflowError):
            count = 0
        # Of a file that is cut off, what is there is read: only what no file can hold is refused.
        most = os.path.getsize(file) * (MOST_DEFLATED if _is_deflated(header) else 1)
        if not 0 < count <= most:
            reason = "it states a number of frames that it cannot have"
            raise InputError(self.path, reason, "Copy or export it again.")
        return count

    def _series(self) -> dict[str, Dataset]:
        """The headers of a series in its order, by file."""
        names = sorted(os.listdir(self.path), key=natural_key)
        headers: dict[str, Dataset] = {}
        for name in names:
            if not is_dicom(name) or is_ignored(name):
                continue
            header = self._header(file := os.path.join(self.path, name))
            if header is None or "Rows" not in header:
                self.warnings.append(f"{name} is not a DICOM file with frames: left out")
            else:
                headers[file] = header
        if not headers:
            raise InputError(self.path, "no DICOM file with frames in this folder")
        if any(self._frame_count(file, header) > 1 for file, header in headers.items()):
            hint = "Give each of these files as a clip of its own."
            raise InputError(self.path, "files in it hold several frames each", hint)
        if (count := len({header.get("SeriesInstanceUID") for header in headers.values()})) > 1:
            hint = "Put each series into a folder of its own."
            raise InputError(self.path, f"{count} DICOM series in one folder", hint)
        keys = _order(list(headers.values()))
        if keys is None:
            self.warnings.append("frames are not numbered: taken in the order of their names")
            return headers
        files = [file for _, file in sorted(zip(keys, headers, strict=True))]
        return {file: headers[file] for file in files}

    def _header(self, file: str) -> Dataset | None:
        """The header of a file, without its pixels; None where it is not DICOM."""
        if not os.path.isfile(file):  # a pipe would be waited for
            return None
        with _silence():
            try:
                return pydicom.dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError):
                return None

    def time(self, fps: float) -> FrameTimes:
        """The times that the files state, else the i-th frame at ``i / fps``."""
        with _silence():
            times = _stated_times(list(self._headers.values()), len(self.sources))
        return super().time(fps) if times is None else FrameTimes(times, end_of(times, None))

    def image(self, file: str, page: int) -> Pixels:
        """Read one frame; it may raise anything."""
        header = self._headers[file]
        check_size(self.path, int(header.Columns), int(header.Rows))
        with _silence():
            decoder = get_decoder(syntax := header.file_meta.TransferSyntaxUID)
            if not decoder.is_available:
                known = syntax.is_transfer_syntax and not syntax.is_private
                raise InputError(
                    self.path,
                    "no installed package reads its compression "
                    f"({syntax.name if known else 'a private one'})",
                    "Install pylibjpeg with its plugins: pip install 'pylibjpeg[all]'",
                )
            return to_rgb(file, header, page)

    def reason(self, error: Exception) -> str:
        """The reason why a frame cannot be read; never the message, which may quote the file."""
        return f"damaged or not supported, {type(error).__name__}"


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress pydicom's warnings, which quote values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_deflated(header: Dataset) -> bool:
    """True for a file that is compressed as a whole."""
    try:
        return bool(header.file_meta.TransferSyntaxUID.is_deflated)
    except (AttributeError, ValueError):  # none, or a private one
        return False


def _order(headers: list[Dataset]) -> list[float] | None:
    """Keys that put a series in order: its numbers, else positions along the stack."""
    numbers = [_number(header, "InstanceNumber") for header in headers]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return [float(number) for number in numbers if number is not None]
    try:
        x, y = np.reshape([float(v) for v in headers[0].ImageOrientationPatient], (2, 3))
        normal = np.cross(x, y)
        positions = [
            float(np.dot([float(v) for v in header.ImagePositionPatient], normal))
            for header in headers
        ]
    except (AttributeError, TypeError, ValueError):
        return None
    return positions if len(set(positions)) == len(positions) else None


def _number(header: Dataset, name: str) -> float | None:
    """A positive number that a file states, None where it states none."""
    try:
        value = float(header.get(name))
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value >= 0 else None


def _stated_times(headers: list[Dataset], count: int) -> Times | None:
    """Seconds at which each frame is shown, None where the files do not tell."""
    first = headers[0]
    triggers = [_number(header, "TriggerTime") for header in headers]  # of a heart beat
    if count > 1 and len(headers) == count and None not in triggers:
        times: Times = np.array(triggers, np.float64) / 1000
        if (np.diff(times) > 0).all():
            times -= times[0]
            return times
    try:  # Frame Time Vector: milliseconds since the frame before
        steps = np.array([float(step) for step in first.FrameTimeVector]) / 1000
        if len(steps) == count and (steps[1:] > 0).all():
            return np.concatenate([[0.0], np.cumsum(steps[1:])])
    except (AttributeError, TypeError, ValueError):
        pass
    indices = np.arange(count, dtype=np.float64)
    if step := _number(first, "FrameTime"):
        return indices * step / 1000
    rate = _number(first, "RecommendedDisplayFrameRate") or _number(first, "CineRate")
    return indices / rate if rate else None
