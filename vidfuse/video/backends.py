"""The table of decoders, and which to try in what order.

``auto`` means PyAV, then decord for a file that PyAV cannot read. Measured on real clips PyAV is as
fast or faster (docs/decoders.md), and decord numbers packets, not frames: where a stream has
gaps, packed B-frames or an edit list it returns wrong frames without an error. So decord is used
on request, and only where its frame table agrees with the stream's own timestamps.

torchcodec (an extra) is used on request only, with the same check.

What is no video stream (frame folders, frame files, DICOM) has one reader, whatever decoder was
asked for.

A new decoder is one file with its `Reader` and one line here. Nothing of weight is imported, so
that ``doctor`` can read the table where libraries are broken.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from vidfuse.data.files import FRAME_EXTENSIONS, read_head
from vidfuse.data.multipage import DICOM_EXTENSIONS, is_dicom
from vidfuse.errors import UnknownNameError, UserError

# Operating system as Python names it, and processor.
X86_64 = frozenset({("linux", "x86_64"), ("win32", "AMD64")})


@dataclass(frozen=True, slots=True)
class Backend:
    """One decoder.

    Attributes:
        reader: ``module:class`` of its `Reader`.
        module: The module that must be installed.
        package: The package that it comes in.
        extra: The extra of vidfuse that brings the package; None where vidfuse depends on it.
        wheels: Operating systems and processors that the package has wheels for; None is all.
        minimum: Oldest versions that work, by package, where vidfuse itself checks them.
        needs_frame_times: True for a decoder that numbers packets and must be given the stream's
            frame_times to be right.
        gpu: True where it decodes on a GPU.
        resident: True where its libraries reserve far more address space than they use, so that
            the resident size is limited instead. Its reader loads them in ``load_libraries``.
        reads_images: True for the reader of clips that are no video streams. Only these are told
            how many frames a second has.
    """

    reader: str
    module: str
    package: str
    extra: str | None = None
    wheels: frozenset[tuple[str, str]] | None = None
    minimum: dict[str, tuple[int, ...]] = field(default_factory=dict)
    needs_frame_times: bool = False
    gpu: bool = False
    resident: bool = False
    reads_images: bool = False

    @property
    def has_wheels(self) -> bool:
        """True where its package can be installed from wheels on this machine."""
        return self.wheels is None or (sys.platform, platform.machine()) in self.wheels


_DECORD = Backend(
    "vidfuse.video.decord_backend:DecordReader",
    module="decord",
    package="decord",
    wheels=X86_64,
    needs_frame_times=True,
)
# As in pyproject.toml. Since torchcodec 0.12 one build works with every torch from 2.11 on; earlier
# ones fit one each.
_TORCHCODEC = Backend(
    "vidfuse.video.torchcodec_backend:TorchCodecReader",
    module="torchcodec",
    package="torchcodec",
    extra="torchcodec",
    minimum={"torchcodec": (0, 12), "torch": (2, 11)},
    needs_frame_times=True,
    resident=True,
)
BACKENDS = {
    "pyav": Backend("vidfuse.video.pyav_backend:PyAVReader", "av", "av"),
    "decord": _DECORD,
    "decord-gpu": replace(
        _DECORD,
        reader="vidfuse.video.decord_backend:DecordGPUReader",
        gpu=True,
        resident=True,
    ),
    "torchcodec": _TORCHCODEC,
    "torchcodec-cuda": replace(
        _TORCHCODEC, reader="vidfuse.video.torchcodec_backend:TorchCodecCudaReader", gpu=True
    ),
    "images": Backend("vidfuse.video.images:ImageReader", "PIL", "pillow", reads_images=True),
    "dicom": Backend(
        "vidfuse.video.dicom:DicomReader", "pydicom", "pydicom", extra="dicom", reads_images=True
    ),
}
VIDEO_BACKENDS = tuple(name for name, known in BACKENDS.items() if not known.reads_images)
# A policy is what a cache key names: pinned backends, or a numbered rule for choosing. It includes
# the rules by which frames of other than 8 bits become 8 bits (see image.py and dicom.py), so
# a change of those needs a new number.
POLICIES = {"auto": ("auto/1", ("pyav", "decord"))} | {
    name: (name, (name,)) for name in VIDEO_BACKENDS
}


def policy(decoder: str) -> tuple[str, tuple[str, ...]]:
    """The policy's name in cache keys, and the backends to try in order.

    Raises:
        UnknownNameError: For a decoder that is not in ``POLICIES``.
    """
    if decoder not in POLICIES:
        raise UnknownNameError("decoder", decoder, POLICIES)
    return POLICIES[decoder]


def image_backend(path: str) -> str | None:
    """The backend for a clip that is no video stream, None for one that is.

    Args:
        path: A folder counts as a clip stored as frames. A file goes by its suffix, and one
            without a suffix by the mark of DICOM at its beginning.
    """
    if os.path.isdir(path):
        return "dicom" if any(is_dicom(name) for name in os.listdir(path)) else "images"
    suffix = os.path.splitext(path)[1].lower()
    if suffix in DICOM_EXTENSIONS or (not suffix and read_head(path, 132)[128:] == b"DICM"):
        return "dicom"
    return "images" if suffix in FRAME_EXTENSIONS else None


def installed(backend: str) -> bool:
    """True where a backend's package can be found; it is not imported."""
    return find_spec(BACKENDS[backend].module) is not None


def not_installed(backend: str) -> UserError:
    """The refusal to read with a decoder whose package is missing, with the next step."""
    known = BACKENDS[backend]
    if known.extra:
        hint = f"Run: pip install 'vidfuse[{known.extra}]', or leave --decoder at 'auto'."
    elif known.wheels:
        hint = f"Leave --decoder at 'auto' ({known.package} has wheels for x86-64 only)."
    else:
        hint = f"Run: pip install --force-reinstall {known.package}"
    return UserError(f"decoder '{backend}' is not installed on this machine", hint)
