"""The decoder protocol, and reading the frames of a clip with a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from vidfuse.errors import InputError, UnknownNameError
from vidfuse.video import DEFAULT_FPS
from vidfuse.video.backends import BACKENDS, POLICIES, installed, not_installed
from vidfuse.video.frames import Fitter, FrameRequest, Frames, Pixels
from vidfuse.video.sampling import FrameTimes, Sampling, Times

ROUNDING = 0.1  # seconds by which a segment may end behind its video
MAX_PIXELS = 2**27  # 134 megapixels, four times 8K: more than that is a damaged or hostile header


Fit = Callable[[Pixels], Pixels]


def unchanged(image: Pixels) -> Pixels:
    """The frame as it is."""
    return image


class Reader(Protocol):
    """One open video file.

    Attributes:
        name: The backend's name.
    """

    name: str

    @property
    def decoded(self) -> int:
        """Number of frames that were decoded so far."""

    @property
    def warnings(self) -> list[str]:
        """Problems so far that were not fatal."""

    @property
    def frame_times(self) -> FrameTimes:
        """Presentation times of all frames, as far as is known before they are read."""

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pixels], Times]:
        """The frames on screen at ``times`` (not decreasing), and their presentation times.

        Args:
            times: Moments in seconds.
            fit: Called for each frame as it is decoded, in order of time; what it returns is
                kept.
        """

    def close(self) -> None:
        """Release the file."""


def open_video(
    path: str,
    backend: str,
    frame_times: FrameTimes | None = None,
    fps: float = DEFAULT_FPS,
    *,
    again: bool = False,
) -> Reader:
    """Open a clip with one backend.

    Args:
        path: The file or frame folder.
        backend: A key of ``BACKENDS``.
        frame_times: The presentation times that PyAV found, for a backend that needs them.
        fps: Frames per second of a clip that does not say.
        again: True where more will be asked of the clip after the first frames; its frame times
            then stay what they are at first.

    Raises:
        InputError: The file is missing, empty, or not a video that this backend reads.
        UserError: The backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("decoder", backend, POLICIES)
    if not installed(backend):
        if backend == "dicom":  # no decoder was asked for: the file is what needs it
            reason = "reading DICOM needs the package pydicom: pip install 'vidfuse[dicom]'"
            raise InputError(path, reason)
        raise not_installed(backend)
    reader = load_reader(backend)
    if BACKENDS[backend].reads_images:
        return cast(Reader, reader(path, fps))
    return cast(Reader, reader(path, frame_times, again))


def load_reader(backend: str) -> Any:
    """The class that reads clips with a backend, whose package is imported."""
    module, _, name = BACKENDS[backend].reader.partition(":")
    return getattr(import_module(module), name)


def wrong_frames(path: str, backend: str, why: str) -> InputError:
    """The refusal to read with a decoder what it would read wrongly."""
    return InputError(
        path,
        f"{backend} would return wrong frames here: {why}",
        "Use --decoder auto, which reads it with PyAV.",
    )


def read_frames(
    request: FrameRequest, backend: str, frame_times: FrameTimes | None = None
) -> Frames:
    """Open a clip, choose its frames and read them.

    Raises:
        InputError: The file cannot be read, or the segment holds no frame.
    """
    reader = open_video(request.path, backend, frame_times, request.fps)
    try:
        return read_from(reader, request)
    finally:
        reader.close()


def read_from(reader: Reader, request: FrameRequest) -> Frames:
    """Choose frames of an open clip and read them.

    Raises:
        InputError: The file cannot be read, or the segment holds no frame.
    """
    before = reader.decoded
    frame_times: FrameTimes | None = None
    while reader.frame_times is not frame_times:  # once more where the container's was wrong
        frame_times = reader.frame_times
        clip = frame_times.cut(request.start, request.end)
        if not len(clip.times):
            raise InputError(
                request.path,
                f"no frame between {request.start or 0:g} s and "
                f"{'the end' if request.end is None else f'{request.end:g} s'}",
                f"The video ends at {frame_times.end:.2f} s: check the segment's times.",
            )
        rule = Sampling.parse(request.sampling)
        if rule.mode == "rate":  # a frame that is on screen then came before
            clip = replace(clip, start=request.start)
        chosen, repeats = clip.times[rule.pick(clip, request.frames)], None
        if request.once:
            chosen, counts = np.unique(chosen, return_counts=True)
            repeats = counts.tolist()
        wanted = chosen if request.only is None else chosen[list(request.only)]
        fit = Fitter(
            request.size,
            request.crop,
            request.mirrored,
            request.interpolation,
            request.crop_fraction,
            request.view,
        )
        pixels, times = reader.read(wanted, fit) if len(wanted) else ([], wanted)
    return Frames(
        pixels=fit.stack(pixels),
        times=times,
        start=float(clip.times[0]),
        end=float(clip.end),
        count=len(clip.times),
        width=fit.width,
        height=fit.height,
        decoder=reader.name,
        warnings=[*reader.warnings, *_cut_short(frame_times, request)],
        candidates=len(chosen),
        decoded=reader.decoded - before,
        repeats=repeats,
    )


def _cut_short(frame_times: FrameTimes, request: FrameRequest) -> list[str]:
    """A warning where a segment goes on behind the end of its video.

    A stretch of a long video is no segment that somebody asked for.
    """
    stretch = request.sampling.startswith("rate")
    if stretch or request.end is None or request.end - frame_times.end <= ROUNDING:
        return []
    return [f"the segment ends at {request.end:g} s, and the video at {frame_times.end:.2f} s"]


def check_size(path: str, width: int, height: int) -> None:
    """Refuse frames that no real camera makes.

    Raises:
        InputError: For no pixels at all or more than ``MAX_PIXELS``.
    """
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(path, f"frames of {width}x{height} pixels cannot be read")


def end_of(times: Times, last_duration: float | None) -> float:
    """Time at which the last frame leaves the screen: by its duration, else the usual interval."""
    if last_duration is None or last_duration <= 0:
        gaps = np.diff(times)
        gaps = gaps[gaps > 0]
        last_duration = float(np.median(gaps)) if len(gaps) else 1 / 25
    return float(times[-1]) + last_duration
