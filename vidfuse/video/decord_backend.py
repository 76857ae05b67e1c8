"""Reading videos with decord where its frame table can be relied on.

decord numbers the packets of a stream and calls them frames. It never reports which frame it
really decoded, and its seeks can land one off, so frames are read in order, and only from files
whose frame table agrees with the frame times that PyAV read from the container.
"""

from __future__ import annotations

import contextlib
import os
import re

import decord
import numpy as np

from vidfuse.errors import InputError, UserError
from vidfuse.video.decoder import Fit, check_size, unchanged, wrong_frames
from vidfuse.video.frames import Pixels
from vidfuse.video.sampling import FrameTimes, Times, on_screen


class DecordReader:
    """One open video file; see ``Reader``.

    Args:
        path: The file.
        frame_times: The container's; without it decord's own table is believed as long as
            it is plausible.
        again: Changes nothing: its frame times stay what they are at first.

    Raises:
        InputError: decord cannot open the file, or its frame table is wrong.
    """

    name = "decord"

    def __init__(
        self, path: str, frame_times: FrameTimes | None = None, again: bool = False
    ) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.decoded = 0
        self._open()
        stamps = np.asarray(self.video.get_frame_timestamp(range(len(self.video))), np.float64)
        self.frame_times = self._checked(stamps, frame_times)

    @classmethod
    def context(cls) -> object:
        """The device that decodes."""
        return decord.cpu(0)

    def _open(self) -> None:
        try:
            self.video = decord.VideoReader(self.path, ctx=self.context(), num_threads=1)
        except (decord.DECORDError, RuntimeError, OSError, ValueError) as error:
            raise InputError(self.path, f"decord cannot open it ({_reason(error)})") from error
        self.position = 0

    def _checked(self, stamps: Times, frame_times: FrameTimes | None) -> FrameTimes:
        starts = stamps[:, 0] if stamps.size else np.empty(0)
        plausible = len(starts) and np.isfinite(starts).all() and starts[0] >= -1e-6
        if not plausible or (np.diff(starts) <= 0).any():
            raise wrong_frames(self.path, self.name, "its frame table has impossible timestamps")
        if frame_times is None:
            self.warnings.append("decord's frame table could not be checked")
            return FrameTimes(starts, float(stamps[-1, 1]))
        if len(starts) != len(frame_times.times):
            raise wrong_frames(
                self.path,
                self.name,
                f"it counts {len(starts)} frames where the stream shows {len(frame_times.times)}",
            )
        # decord counts from the stream's first frame, the container from its own start.
        if np.abs((starts - starts[0]) - (frame_times.times - frame_times.times[0])).max() > 2e-3:
            raise wrong_frames(self.path, self.name, "its timestamps differ from the stream's")
        return frame_times

    def read(self, times: Times, fit: Fit = unchanged) -> tuple[list[Pixels], Times]:
        """The frames on screen at ``times`` (not decreasing), and their presentation times."""
        indices = on_screen(self.frame_times.times, times)
        pixels: list[Pixels] = []
        try:
            for index in indices.tolist():
                if pixels and index == self.position - 1:
                    pixels.append(pixels[-1])
                    continue
                if index < self.position:
                    self._open()
                for _ in range(index - self.position):  # skip_frames() lands one off near the end
                    self.video.next()
                image = self.video.next().asnumpy()
                check_size(self.path, image.shape[1], image.shape[0])
                pixels.append(fit(image))
                self.decoded += index + 1 - self.position
                self.position = index + 1
        except (decord.DECORDError, StopIteration) as error:
            raise InputError(self.path, f"decord fails to decode it ({_reason(error)})") from error
        return pixels, self.frame_times.times[indices]

    def close(self) -> None:
        """Release the file."""
        del self.video


class DecordGPUReader(DecordReader):
    """As ``DecordReader``, decoding on the NVIDIA GPU that ``VIDFUSE_DECORD_GPU`` names.

    Raises:
        UserError: The installed decord was built without CUDA, as the wheels on PyPI are.
    """

    name = "decord-gpu"

    @classmethod
    def context(cls) -> object:
        """The device that decodes."""
        return decord.gpu(int(os.environ.get("VIDFUSE_DECORD_GPU", "0")))

    @classmethod
    def load_libraries(cls) -> None:
        """Have the driver make its context, before the memory for clips is counted."""
        with contextlib.suppress(decord.DECORDError, ValueError):  # is told with the first clip
            decord.nd.empty((1,), ctx=cls.context())

    def _open(self) -> None:
        try:
            super()._open()
        except InputError as error:
            if "CUDA not enabled" not in error.reason:
                raise
            raise UserError(
                "the installed decord cannot decode on a GPU: it was built without CUDA",
                "Build decord from source with -DUSE_CUDA=ON, or leave --decoder at 'auto'.",
            ) from error


# What decord puts around a message: "[time] file:line: Check failed: a == b (1 vs. 2) [path]".
DECORATION = re.compile(r"^\[[\d:]+\] \S+:\d+: |Check failed: .*? vs\. .*?\) |\[/[^\]]*\]")


def _reason(error: Exception) -> str:
    """The message alone."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return DECORATION.sub("", lines[0])[:120].strip()
