"""Reading videos with torchcodec, on the CPU or on an NVIDIA GPU (NVDEC).

torchcodec numbers the packets of a stream in the order of their times, decodes a numbered frame
and says when it is shown. Both the numbers and the times are held against the frame times that PyAV
read from the container, so a frame of another moment is an error. What those times do not tell
(see ``PyAVReader.obstacle``) is refused before it is opened.

This is the one decoder that imports torch, and it needs the shared libraries of FFmpeg, which its
wheels leave to the system.
"""

from __future__ import annotations

import contextlib
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from vidfuse.errors import InputError, UserError, first_sentence
from vidfuse.video.backends import BACKENDS
from vidfuse.video.decoder import Fit, check_size, unchanged, wrong_frames
from vidfuse.video.frames import Pixels
from vidfuse.video.sampling import FrameTimes, Indices, Times, on_screen

FFMPEG_HINT = (
    "Install FFmpeg 4 to 9 with its shared libraries (Debian and Ubuntu: apt-get install ffmpeg; "
    "macOS: brew install ffmpeg; conda: conda install ffmpeg), or leave --decoder at 'auto'."
)
BATCH_BYTES = 2**28  # frames that are decoded together take at most
OFF = 2e-3  # seconds by which two readings of one time stamp may differ


def import_torchcodec() -> Any:
    """The module ``torchcodec``, able to decode videos.

    Raises:
        ModuleNotFoundError: It is not installed.
        UserError: It does not fit the installed torch, or FFmpeg's libraries are missing.
    """
    _check_versions()
    try:
        torchcodec = import_module("torchcodec")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchcodec":
            raise
        if "Could not load libtorchcodec" in str(error):  # older releases find out on import
            raise _without_ffmpeg() from error
        raise UserError(
            f"torchcodec cannot be imported ({first_sentence(error)})",
            "Run: pip install --force-reinstall --no-deps torchcodec",
        ) from error
    if getattr(torchcodec, "ffmpeg_major_version", None) is None:
        raise _without_ffmpeg()
    return torchcodec


def _check_versions() -> None:
    for name, minimum in BACKENDS["torchcodec"].minimum.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # whether it can be imported all the same, importing it tells
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
        if numbers < minimum:
            wanted = ".".join(map(str, minimum))
            raise UserError(
                f"decoder 'torchcodec' needs {name} {wanted} or newer, and {found} is installed",
                "Run: pip install --upgrade 'vidfuse[torchcodec]', or leave --decoder at 'auto'.",
            )


def _without_ffmpeg() -> UserError:
    return UserError("torchcodec does not find the shared libraries of FFmpeg", FFMPEG_HINT)


def gpu_problem(torchcodec: Any) -> str | None:
    """The reason why torchcodec cannot decode on a GPU here, as far as known without a video."""
    if not import_module("torch").cuda.is_available():
        return "torch finds no NVIDIA GPU"
    if "+cpu" in torchcodec.__version__:
        return "the installed torchcodec was built without CUDA"
    return None


class TorchCodecReader:
    """One open video file; see ``Reader``.

    torchcodec does not tell how many frames it decodes on the way to those asked for, so
    ``decoded`` counts the latter.

    Args:
        path: The file.
        frame_times: The container's.
        again: Changes nothing: its frame times stay what they are at first.

    Raises:
        InputError: torchcodec cannot open the file, or numbers its frames wrongly.
        UserError: torchcodec does not work on this machine.
    """

    name = "torchcodec"
    device = "cpu"

    def __init__(
        self, path: str, frame_times: FrameTimes | None = None, again: bool = False
    ) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.decoded = 0
        torchcodec = import_torchcodec()
        self._check_device(torchcodec)
        try:
            self._video = torchcodec.decoders.VideoDecoder(
                path, dimension_order="NHWC", num_ffmpeg_threads=1, device=self.device
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = _reason(error, path)
            raise InputError(path, f"{self.name} cannot open it ({reason})") from error
        about = self._video.metadata
        check_size(path, about.width, about.height)
        self._begin = about.begin_stream_seconds
        self.frame_times = self._checked(frame_times)

    @classmethod
    def load_libraries(cls) -> None:
        """Load torch and torchcodec, before the memory for clips is counted.

        Raises:
            ModuleNotFoundError, UserError: As `import_torchcodec`.
        """
        import_torchcodec()

    def _check_device(self, torchcodec: Any) -> None:
        """Raise an error where the device cannot be used."""

    def _checked(self, frame_times: FrameTimes | None) -> FrameTimes:
        if frame_times is None:
            raise wrong_frames(self.path, self.name, "PyAV cannot read its time stamps to compare")
        count = len(frame_times.times)
        if len(self._video) != count:
            why = f"it counts {len(self._video)} frames where the stream shows {count}"
            raise wrong_frames(self.path, self.name, why)
        if (np.diff(frame_times.times) <= 0).any():
            raise wrong_frames(self.path, self.name, "several frames have the same time stamp")
        return frame_times

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pixels], Times]:
        """The frames on screen at ``times`` (not decreasing), and their presentation times."""
        indices = on_screen(self.frame_times.times, times)
        about = self._video.metadata
        together = max(1, BATCH_BYTES // (about.width * about.height * 3))
        pixels: list[Pixels] = []
        for start in range(0, len(indices), together):
            pixels += map(fit, self._decode(indices[start : start + together]))
        self.decoded += len(np.unique(indices))
        return pixels, self.frame_times.times[indices]

    def _decode(self, indices: Indices) -> Pixels:
        """Frames ``[n, H, W, 3]`` by their numbers; their times must be as expected."""
        try:
            batch = self._video.get_frames_at(indices.tolist())
        except (RuntimeError, IndexError, ValueError) as error:
            raise InputError(
                self.path,
                f"{self.name} fails to decode it ({_reason(error, self.path)})",
                "Use --decoder auto, which reads it with PyAV.",
            ) from error
        expected = self.frame_times.times[indices]
        got = batch.pts_seconds.cpu().numpy() - self._begin + self.frame_times.times[0]
        wrong = np.flatnonzero(np.abs(got - expected) > OFF)
        if len(wrong):
            at = wrong[0]
            why = f"its frame of {expected[at]:.3f} s is that of {got[at]:.3f} s"
            raise wrong_frames(self.path, self.name, why)
        pixels: Pixels = batch.data.cpu().numpy()
        return pixels

    def close(self) -> None:
        """Release the file."""
        del self._video


class TorchCodecCudaReader(TorchCodecReader):
    """As ``TorchCodecReader``, decoding on the first NVIDIA GPU that torch sees.

    What NVDEC cannot read the CPU decodes, and a warning of the clip says so.

    Raises:
        UserError: torch sees no GPU, or torchcodec was built without CUDA.
    """

    name = "torchcodec-cuda"
    device = "cuda"

    @classmethod
    def load_libraries(cls) -> None:
        """Load torch and torchcodec, and CUDA with them, whose context takes memory too."""
        if gpu_problem(import_torchcodec()) is None:
            with contextlib.suppress(RuntimeError):  # is told when a clip is asked for
                import_module("torch").zeros(1, device=cls.device)

    def _check_device(self, torchcodec: Any) -> None:
        problem = gpu_problem(torchcodec)
        if problem:
            raise UserError(
                f"decoder '{self.name}' cannot be used: {problem}",
                "Run 'vidfuse doctor' to see more, or use --decoder torchcodec.",
            )

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pixels], Times]:
        """The frames on screen at ``times`` (not decreasing), and their presentation times."""
        answer = super().read(times, fit)
        fallback = self._video.cpu_fallback  # known once a frame was decoded
        if fallback and not self.warnings:
            why = str(fallback).rpartition(": ")[2]
            self.warnings.append(f"decoded on the CPU, not on the GPU ({why})")
        return answer


# What torchcodec puts before a message: "function, /path/of/source.cpp:line, ".
PLACE = re.compile(r"^[\w:]+, \S+\.(?:cpp|h):\d+, ")


def _reason(error: Exception, path: str) -> str:
    """The message alone."""
    lines = PLACE.sub("", str(error)).replace(path, "").splitlines() or [type(error).__name__]
    return " ".join(lines[0].split())[:120]
