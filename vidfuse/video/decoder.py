"""The decoder protocol, the table of backends, and which to try in what order.

``auto`` means PyAV, then decord for a file that PyAV cannot read. Measured on real clips the two
are equally fast on one core, but decord numbers packets, not pictures: where a stream has gaps,
packed B-frames or an edit list it returns wrong pictures without an error. So decord is used on
request, and only where its frame table agrees with the stream's own timestamps.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Protocol, cast

import numpy as np

from vidfuse.errors import InputError, UnknownNameError, UserError
from vidfuse.video.frames import FrameRequest, Frames, Pictures, stack
from vidfuse.video.sampling import Sampling, Timeline, Times

# name → (module that must be installed, where the reader is)
BACKENDS = {
    "pyav": ("av", "vidfuse.video.pyav_backend:PyAVReader"),
    "decord": ("decord", "vidfuse.video.decord_backend:DecordReader"),
    "decord-gpu": ("decord", "vidfuse.video.decord_backend:DecordGPUReader"),
}
# A policy is what a cache key names: pinned backends, or a numbered rule for choosing.
POLICIES = {
    "auto": ("auto/1", ("pyav", "decord")),
    "pyav": ("pyav", ("pyav",)),
    "decord": ("decord", ("decord",)),
    "decord-gpu": ("decord-gpu", ("decord-gpu",)),
}
MAX_PIXELS = 2**27  # 134 megapixels, four times 8K: more than that is a damaged or hostile header


class Reader(Protocol):
    """One open video file.

    Attributes:
        name: The backend's name.
    """

    name: str

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far without being fatal."""

    @property
    def timeline(self) -> Timeline:
        """Presentation times of all pictures."""

    def read(self, times: Times) -> tuple[list[Pictures], Times]:
        """The pictures on screen at ``times`` (not decreasing), and their presentation times."""

    def close(self) -> None:
        """Release the file."""


def open_video(path: str, backend: str, timeline: Timeline | None = None) -> Reader:
    """Open a video with one backend.

    Args:
        path: The file.
        backend: A key of ``BACKENDS``.
        timeline: The presentation times that PyAV found, for a backend that needs them.

    Raises:
        InputError: The file is missing, empty, or not a video that this backend reads.
        UserError: The backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("decoder", backend, POLICIES)
    if not installed(backend):
        raise UserError(
            f"decoder '{backend}' is not installed on this machine",
            "Leave --decoder at 'auto', or install it (decord has wheels for x86-64 only).",
        )
    module, _, name = BACKENDS[backend][1].partition(":")
    return cast(Reader, getattr(import_module(module), name)(path, timeline))


def installed(backend: str) -> bool:
    """Whether a backend's package can be found, without importing it."""
    return find_spec(BACKENDS[backend][0]) is not None


def backend_version(backend: str) -> str | None:
    """Version of a backend's package, None when it is not installed."""
    try:
        return version(BACKENDS[backend][0])
    except PackageNotFoundError:
        return None


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
    return backend.startswith("decord")


def wrong_frames(path: str, why: str) -> InputError:
    """The refusal to read with decord what it would read wrongly."""
    return InputError(
        path,
        f"decord would return wrong frames here: {why}",
        "Use --decoder auto, which reads it with PyAV.",
    )


def read_frames(request: FrameRequest, backend: str, timeline: Timeline | None = None) -> Frames:
    """Open a clip, choose its pictures and read them.

    Raises:
        InputError: The file cannot be read, or the segment holds no picture.
    """
    reader = open_video(request.path, backend, timeline)
    try:
        clip = reader.timeline.cut(request.start, request.end)
        if not len(clip.times):
            raise InputError(
                request.path,
                f"no picture between {request.start or 0:g} s and "
                f"{'the end' if request.end is None else f'{request.end:g} s'}",
                f"The video ends at {reader.timeline.end:.2f} s: check the segment's times.",
            )
        wanted = clip.times[Sampling.parse(request.sampling).pick(clip, request.frames)]
        pictures, times = reader.read(wanted)
        height, width = pictures[0].shape[:2]
        return Frames(
            pictures=stack(pictures, request.size, request.crop),
            times=times,
            start=float(clip.times[0]),
            end=float(clip.end),
            count=len(clip.times),
            width=width,
            height=height,
            decoder=reader.name,
            warnings=list(reader.warnings),
        )
    finally:
        reader.close()


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
