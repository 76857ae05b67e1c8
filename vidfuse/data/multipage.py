"""Files of a picture format that hold a whole sequence: TIFF with pages, DICOM with frames.

Whether a file does is in its structure, which may be damaged or made to mislead. So it is read by
Pillow and pydicom in a child process, with limits of time and memory.
"""

from __future__ import annotations

import os
import stat
import threading
from functools import lru_cache
from typing import Any

from vidfuse.rpc import Answer, Child, ChildEndedError, Order, serve
from vidfuse.system import limit_memory

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})
SECONDS = 10.0  # that a file may take
MEMORY = 2**30  # bytes that it may take
REMEMBERED = 2**16  # files, so that a folder that is watched is not read again and again

_NEW_SUBFILE_TYPE, _REDUCED = 254, 1


def is_dicom(name: str | os.PathLike[str]) -> bool:
    """Whether a name has the suffix of a DICOM file."""
    return os.path.splitext(name)[1].lower() in DICOM_EXTENSIONS


def is_multipage(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TIFF with several pages or a DICOM file with several frames.

    Files with other suffixes are not opened; of those that cannot be read, or take longer than
    ``SECONDS``, the answer is no.
    """
    if os.path.splitext(path)[1].lower() not in TIFF_EXTENSIONS | DICOM_EXTENSIONS:
        return False
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(status.st_mode):
        return False
    return _asked(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=REMEMBERED)
def _asked(path: str, size: int, mtime: int, inode: int) -> bool:
    """The answer of the child process, remembered until the file changes."""
    return _RECOGNISER.is_multipage(path)


class _Recogniser:
    """A child process that reads files' structure, started when one is first asked about."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None

    def is_multipage(self, path: str) -> bool:
        """Ask the child; no where it dies of the file or takes too long."""
        with self._lock:
            if self._child is None or not self._child.alive():
                self._child = Child("vidfuse.data.multipage:main")
            try:
                answer, _ = self._child.ask({"path": path}, SECONDS)
            except ChildEndedError:
                self._child.close()
                self._child = None
                return False
            return bool(answer["multipage"])


_RECOGNISER = _Recogniser()
if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock while the process is forked; the child is the parent's.
    os.register_at_fork(after_in_child=_RECOGNISER.__init__)  # type: ignore[misc]


def main() -> None:
    """Answer which files have several pages, in a process of its own."""
    limit_memory(MEMORY)
    serve(_answer)


def _answer(order: Order) -> Answer:
    path = str(order["path"])
    try:
        several = _has_frames(path) if is_dicom(path) else _has_pages(path)
    except Exception:  # damaged files make Pillow and pydicom raise all kinds
        several = False
    return {"multipage": several}


def _has_pages(path: str) -> bool:
    """Whether a TIFF has a second page that is not a thumbnail of the first."""
    from PIL import Image

    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(1)
        tags: Any = image.tag_v2  # type: ignore[attr-defined]  # of TIFF files only
        return not tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED


def _has_frames(path: str) -> bool:
    """Whether a DICOM file states that it has several frames."""
    import pydicom

    found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
    return int(found.get("NumberOfFrames") or 1) > 1
