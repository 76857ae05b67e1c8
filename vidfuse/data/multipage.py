"""Files of a picture format that hold a whole sequence: TIFF with pages, DICOM with frames."""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})

_DICOM_HEADER = 2**18  # bytes in which the attribute stands, if the file has it
# Number of Frames (0028,0008), with its type "IS" or, where types are left out, without.
_FRAMES = re.compile(rb"\x28\x00\x08\x00(?:IS..|..\x00\x00)\s*(\d+)", re.DOTALL)
_NEW_SUBFILE_TYPE = 254


def is_dicom(name: str | os.PathLike[str]) -> bool:
    """Whether a name has the suffix of a DICOM file."""
    return os.path.splitext(name)[1].lower() in DICOM_EXTENSIONS


def is_stack(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TIFF with several pages or a DICOM file with several frames.

    Files with other suffixes are not opened; of those that cannot be read the answer is no.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in TIFF_EXTENSIONS | DICOM_EXTENSIONS:
        return False
    try:
        with open(path, "rb") as file:
            if suffix in TIFF_EXTENSIONS:
                return _has_pages(file)
            match = _FRAMES.search(file.read(_DICOM_HEADER))
            return match is not None and int(match[1]) > 1
    except (OSError, struct.error):
        return False


def _has_pages(file: BinaryIO) -> bool:
    """Whether a second directory follows the first that is not a thumbnail."""
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None:
        return False
    (version,) = struct.unpack(f"{order}H", header[2:4])
    if version not in (42, 43):
        return False
    # Type of an offset, of the number of fields, and the size of a field; 43 is BigTIFF.
    kind, count, size = ("I", "H", 12) if version == 42 else ("Q", "Q", 20)

    def number(form: str) -> int:
        form = order + form
        (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
        return int(value)

    file.seek(4 if version == 42 else 8)
    file.seek(number(kind))
    file.seek(number(count) * size, os.SEEK_CUR)
    second = number(kind)
    if second == 0:
        return False
    file.seek(second)
    number(count)
    # Fields are in ascending order, and this is the lowest.
    if number("H") != _NEW_SUBFILE_TYPE:
        return True
    file.seek(2, os.SEEK_CUR)
    number(kind)
    reduced = number("I") & 1
    return not reduced
