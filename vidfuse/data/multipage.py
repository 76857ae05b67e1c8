"""Files of a frame format that hold a whole sequence: TIFF with pages, DICOM with frames.

Whether a file does is in its structure, which may be damaged or made to mislead. So it is read by
Pillow and pydicom in a child process, with limits of time and memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from functools import lru_cache
from typing import Any

from vidfuse.machine import limit_memory
from vidfuse.rpc import OUT_OF_MEMORY, Answer, Child, ChildEndedError, Order, once_more, serve

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})
SECONDS = 10.0  # that a file may take
MEMORY = 2**30  # bytes that it may take
REMEMBERED = 2**16  # files, so that a folder that is watched is not read again and again

_NEW_SUBFILE_TYPE, _REDUCED = 254, 1


def is_dicom(name: str | os.PathLike[str]) -> bool:
    """True for a name with the suffix of a DICOM file."""
    return os.path.splitext(name)[1].lower() in DICOM_EXTENSIONS


def is_multipage(path: str | os.PathLike[str]) -> bool:
    """True for a TIFF with several pages or a DICOM file with several frames.

    Files with other suffixes, and what is no regular file, are not opened; of damaged ones the
    answer is no. Of one that takes longer than ``SECONDS``, or more memory than ``MEMORY``, it is
    yes: as a clip of its own it comes to a reader, which has limits too and says what is wrong.
    """
    if os.path.splitext(path)[1].lower() not in TIFF_EXTENSIONS | DICOM_EXTENSIONS:
        return False
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(status.st_mode):
        return False
    try:
        return _asked(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino)
    except ChildEndedError:  # and that is not remembered
        return True


@lru_cache(maxsize=REMEMBERED)
def _asked(path: str, _size: int, _mtime: int, _inode: int) -> bool:
    """The answer of the child process, remembered until the file changes."""
    return once_more(lambda: _ask_child(path))


def _ask_child(path: str) -> bool:
    """The answer of the child process, which is started when it is first asked.

    Raises:
        ChildEndedError: It died of the file, took too long, or was ended by somebody else.
    """
    global _child
    with _lock:
        if _child is None or not _child.alive():
            _child = Child("vidfuse.data.multipage:main")
            _child.ask({})  # its start is not the file's fault
        try:
            answer, _ = _child.ask({"path": path}, SECONDS)
        except ChildEndedError:
            _child.close()
            _child = None
            raise
        return bool(answer["multipage"])


def _forget_child() -> None:
    """In a forked process: the child is the parent's, and another thread may have held the lock."""
    global _lock, _child
    _lock, _child = threading.Lock(), None


_lock = threading.Lock()
_child: Child | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_child)


def main() -> None:
    """Answer which files have several pages, in a process of its own."""
    import PIL.Image  # noqa: F401  # what the libraries themselves take is not the files' fault

    with contextlib.suppress(ImportError):
        import pydicom  # noqa: F401
    limit_memory(MEMORY)
    serve(_answer)


def _answer(order: Order) -> Answer:
    if "path" not in order:
        return {}
    path = str(order["path"])
    try:
        several = _has_frames(path) if is_dicom(path) else _has_pages(path)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception:  # noqa: BLE001 - damaged files make Pillow and pydicom raise all kinds
        several = False
    return {"multipage": several}


def _has_pages(path: str) -> bool:
    """True for a TIFF with a second page that is not a thumbnail of the first."""
    from PIL import Image

    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(1)
        tags: Any = image.tag_v2  # type: ignore[attr-defined]  # of TIFF files only
        return not tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED


def _has_frames(path: str) -> bool:
    """True for a DICOM file that states that it has several frames."""
    import pydicom

    found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
    return int(found.get("NumberOfFrames") or 1) > 1
