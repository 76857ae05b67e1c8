"""The decoder protocol, the table of backends, and which to try in what order.

``auto`` means PyAV, then decord for a file that PyAV cannot read. Measured on real clips PyAV is as
fast or faster (docs/decoders.md), and decord numbers packets, not pictures: where a stream has
gaps, packed B-frames or an edit list it returns wrong pictures without an error. So decord is used
on request, and only where its frame table agrees with the stream's own timestamps.

torchcodec (an extra) is used on request only, with the same check.

What is no video stream (frame folders, picture files, DICOM) has one reader, whatever decoder was
asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np

from vidfuse.data.files import FRAME_EXTENSIONS, read_head
from vidfuse.data.multipage import is_dicom
from vidfuse.errors import InputError, UnknownNameError, UserError
from vidfuse.video.frames import DEFAULT_FPS, Fitter, FrameRequest, Frames, Pictures
from vidfuse.video.sampling import Sampling, Timeline, Times

# name → (module that must be installed, where the reader is)
BACKENDS = {
    "pyav": ("av", "vidfuse.video.pyav_backend:PyAVReader"),
    "decord": ("decord", "vidfuse.video.decord_backend:DecordReader"),
    "decord-gpu": ("decord", "vidfuse.video.decord_backend:DecordGPUReader"),
    "torchcodec": ("torchcodec", "vidfuse.video.torchcodec_backend:TorchCodecReader"),
    "torchcodec-cuda": ("torchcodec", "vidfuse.video.torchcodec_backend:TorchCodecCudaReader"),
}
ON_GPU = ("decord-gpu", "torchcodec", "torchcodec-cuda")  # or with libraries for one
# package → what to say of one that is not installed
INSTALL = {
    "decord": "Leave --decoder at 'auto' (decord has wheels for x86-64 only).",
    "torchcodec": "Run: pip install 'vidfuse[torchcodec]', or leave --decoder at 'auto'.",
}
# The same for clips that are no video streams; only these are told how many pictures a second has.
PICTURE_BACKENDS = {
    "images": ("PIL", "vidfuse.video.images:PictureReader"),
    "dicom": ("pydicom", "vidfuse.video.dicom:DicomReader"),
}
# A policy is what a cache key names: pinned backends, or a numbered rule for choosing. It includes
# the rules by which pictures of other than 8 bits become 8 bits (see picture.py and dicom.py), so
# a change of those needs a new number.
POLICIES = {
    "auto": ("auto/1", ("pyav", "decord")),
    "pyav": ("pyav", ("pyav",)),
    "decord": ("decord", ("decord",)),
    "decord-gpu": ("decord-gpu", ("decord-gpu",)),
    "torchcodec": ("torchcodec", ("torchcodec",)),
    "torchcodec-cuda": ("torchcodec-cuda", ("torchcodec-cuda",)),
}
ROUNDING = 0.1  # seconds by which a segment may end behind its video
MAX_PIXELS = 2**27  # 134 megapixels, four times 8K: more than that is a damaged or hostile header


Fit = Callable[[Pictures], Pictures]


def unchanged(picture: Pictures) -> Pictures:
    """The picture as it is."""
    return picture


class Reader(Protocol):
    """One open video file.

    Attributes:
        name: The backend's name.
    """

    name: str

    @property
    def decoded(self) -> int:
        """How many pictures were decoded so far."""

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far without being fatal."""

    @property
    def timeline(self) -> Timeline:
        """Presentation times of all pictures, as far as is known before they are read."""

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pictures], Times]:
        """The pictures on screen at ``times`` (not decreasing), and their presentation times.

        Args:
            times: Moments in seconds.
            fit: Is called for each picture as it is decoded, in order of time; what it returns is
                kept.
        """

    def close(self) -> None:
        """Release the file."""


def open_video(
    path: str,
    backend: str,
    timeline: Timeline | None = None,
    fps: float = DEFAULT_FPS,
    *,
    again: bool = False,
) -> Reader:
    """Open a clip with one backend.

    Args:
        path: The file or frame folder.
        backend: A key of ``BACKENDS`` or ``PICTURE_BACKENDS``.
        timeline: The presentation times that PyAV found, for a backend that needs them.
        fps: Pictures per second of a clip that does not say.
        again: Whether more will be asked of the clip after the first pictures; its timeline then
            stays what it is at first.

    Raises:
        InputError: The file is missing, empty, or not a video that this backend reads.
        UserError: The backend is unknown or not installed.
    """
    known = BACKENDS | PICTURE_BACKENDS
    if backend not in known:
        raise UnknownNameError("decoder", backend, POLICIES)
    if backend == "dicom" and not installed(backend):
        raise InputError(
            path,
            "reading DICOM needs the package pydicom: pip install 'vidfuse[dicom]'",
        )
    if not installed(backend):
        raise not_installed(backend)
    reader = load_reader(backend)
    if backend in PICTURE_BACKENDS:
        return cast(Reader, reader(path, fps))
    return cast(Reader, reader(path, timeline, again))


def load_reader(backend: str) -> Any:
    """The class that reads clips with a backend, whose package is imported."""
    module, _, name = (BACKENDS | PICTURE_BACKENDS)[backend][1].partition(":")
    return getattr(import_module(module), name)


def picture_backend(path: str) -> str | None:
    """The backend for a clip that is no video stream, None for one that is.

    Args:
        path: A folder counts as a clip stored as pictures. A file goes by its suffix, and one
            without a suffix by the mark of DICOM at its beginning.
    """
    if os.path.isdir(path):
        return "dicom" if any(is_dicom(name) for name in os.listdir(path)) else "images"
    suffix = os.path.splitext(path)[1].lower()
    if is_dicom(path) or (not suffix and read_head(path, 132)[128:] == b"DICM"):
        return "dicom"
    return "images" if suffix in FRAME_EXTENSIONS else None


def installed(backend: str) -> bool:
    """Whether a backend's package can be found, without importing it."""
    return find_spec((BACKENDS | PICTURE_BACKENDS)[backend][0]) is not None


def not_installed(backend: str) -> UserError:
    """The refusal to read with a decoder whose package is missing, with the next step."""
    return UserError(
        f"decoder '{backend}' is not installed on this machine",
        INSTALL.get(BACKENDS[backend][0], "Run: pip install --force-reinstall av"),
    )


def policy(decoder: str) -> tuple[str, tuple[str, ...]]:
    """The policy's name in cache keys, and the backends to try in order.

    Raises:
        UnknownNameError: For a decoder that is not in ``POLICIES``.
    """
    if decoder not in POLICIES:
        raise UnknownNameError("decoder", decoder, POLICIES)
    return POLICIES[decoder]


def needs_timeline(backend: str) -> bool:
    """Whether a backend must be given the stream's timeline to be right (see the module)."""
    return backend.startswith(("decord", "torchcodec"))


def wrong_frames(path: str, backend: str, why: str) -> InputError:
    """The refusal to read with a decoder what it would read wrongly."""
    return InputError(
        path,
        f"{backend} would return wrong frames here: {why}",
        "Use --decoder auto, which reads it with PyAV.",
    )


def read_frames(request: FrameRequest, backend: str, timeline: Timeline | None = None) -> Frames:
    """Open a clip, choose its pictures and read them.

    Raises:
        InputError: The file cannot be read, or the segment holds no picture.
    """
    reader = open_video(request.path, backend, timeline, request.fps)
    try:
        return read_from(reader, request)
    finally:
        reader.close()


def read_from(reader: Reader, request: FrameRequest) -> Frames:
    """Choose pictures of an open clip and read them.

    Raises:
        InputError: The file cannot be read, or the segment holds no picture.
    """
    before = reader.decoded
    timeline: Timeline | None = None
    while reader.timeline is not timeline:  # once more where the container's was wrong
        timeline = reader.timeline
        clip = timeline.cut(request.start, request.end)
        if not len(clip.times):
            raise InputError(
                request.path,
                f"no picture between {request.start or 0:g} s and "
                f"{'the end' if request.end is None else f'{request.end:g} s'}",
                f"The video ends at {timeline.end:.2f} s: check the segment's times.",
            )
        chosen = clip.times[Sampling.parse(request.sampling).pick(clip, request.frames)]
        wanted = chosen if request.only is None else chosen[list(request.only)]
        fit = Fitter(request.size, request.crop, request.mirrored)
        pictures, times = reader.read(wanted, fit) if len(wanted) else ([], wanted)
    return Frames(
        pictures=fit.stack(pictures),
        times=times,
        start=float(clip.times[0]),
        end=float(clip.end),
        count=len(clip.times),
        width=fit.width,
        height=fit.height,
        decoder=reader.name,
        warnings=[*reader.warnings, *_cut_short(timeline, request)],
        candidates=len(chosen),
        decoded=reader.decoded - before,
    )


def _cut_short(timeline: Timeline, request: FrameRequest) -> list[str]:
    """A warning where a segment goes on behind the end of its video."""
    if request.end is None or request.end - timeline.end <= ROUNDING:
        return []
    return [f"the segment ends at {request.end:g} s, and the video at {timeline.end:.2f} s"]


def check_size(path: str, width: int, height: int) -> None:
    """Refuse pictures that no real camera makes.

    Raises:
        InputError: For no pixels at all or more than ``MAX_PIXELS``.
    """
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(path, f"pictures of {width}x{height} pixels cannot be read")


def end_of(times: Times, last_duration: float | None) -> float:
    """When the last picture leaves the screen: its own duration, else the usual interval."""
    if last_duration is None or last_duration <= 0:
        gaps = np.diff(times)
        gaps = gaps[gaps > 0]
        last_duration = float(np.median(gaps)) if len(gaps) else 1 / 25
    return float(times[-1]) + last_duration
