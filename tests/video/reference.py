"""What the ``ffmpeg`` program shows of a video, and how far other frames are from it.

Frames are compared on a grid of points spread over the frame, so that the reference of a whole
clip stays small in memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from vidfuse.video.sampling import on_screen

GRID = (48, 64)  # rows and columns at which frames are compared
NEIGHBOURS = 3

# Largest mean absolute difference between two conversions of the same frame, of 255. FFmpeg
# versions interpolate chroma differently and PyAV asks for another filter than the program does:
# 1.6 was the most seen on ordinary clips, 4.4 on 10-bit 4:2:0 and on an odd width and height.
TOLERANCE = 2.0
COARSE_TOLERANCE = 5.0
# A neighbour that shows the same thing may win by the noise of the conversion.
MARGIN = 0.05


@dataclass
class Reference:
    """All frames of a video as a viewer sees them.

    Attributes:
        times: ``[N]`` presentation times, seconds from the start of the file.
        sizes: Height and width of each frame.
        points: ``uint8 [N, *GRID, 3]``.
        worst: The largest difference from frames compared so far.
    """

    times: np.ndarray
    sizes: list[tuple[int, int]]
    points: np.ndarray
    worst: float = 0.0

    @property
    def half_interval(self) -> float:
        """Half the usual time between two frames, in seconds."""
        gaps = np.diff(self.times)
        return float(np.median(gaps[gaps > 0])) / 2 if (gaps > 0).any() else 0.02

    def problems(
        self,
        pixels: list[np.ndarray] | np.ndarray,
        times: np.ndarray,
        wanted: np.ndarray | None = None,
        tolerance: float = TOLERANCE,
    ) -> list[str]:
        """What is wrong with frames that were read.

        Args:
            frames: ``[T, H, W, 3]``.
            times: ``[T]`` the times that they are said to be from.
            wanted: ``[T]`` the times that were asked for; None leaves them out.
            tolerance: Largest mean absolute difference allowed.
        """
        wrong: list[str] = []
        if wanted is not None:
            off = np.abs(np.asarray(times) - wanted)
            if off.max() > self.half_interval:
                at = int(off.argmax())
                wrong.append(f"asked for {wanted[at]:.4f} s, answered {times[at]:.4f} s")
        # The nearest time, since rounding may place one just before its frame; of simultaneous
        # frames the last, which is the one that stays on screen.
        nearest = np.abs(self.times - np.asarray(times)[:, None]).argmin(1)
        indices = on_screen(self.times, self.times[nearest])
        for image, time, index in zip(pixels, times, indices.tolist(), strict=True):
            if abs(self.times[index] - time) > self.half_interval:
                wrong.append(f"no frame at {time:.4f} s, the nearest is {self.times[index]:.4f}")
                continue
            if image.shape[:2] != self.sizes[index]:
                wrong.append(f"shape {image.shape} at {time:.4f} s, not {self.sizes[index]}")
                continue
            low = max(0, index - NEIGHBOURS)
            around = self.points[low : index + NEIGHBOURS + 1]
            far = np.abs(around.astype(np.int16) - on_grid(image)).mean((1, 2, 3))
            own = float(far[index - low])
            self.worst = max(self.worst, own)
            if own > tolerance:
                wrong.append(f"{time:.4f} s differs by {own:.2f}")
            if own > far.min() + MARGIN:
                wrong.append(f"{time:.4f} s is rather frame {int(far.argmin()) + low - index:+d}")
        return wrong


def on_grid(image: np.ndarray) -> np.ndarray:
    """``int16 [*GRID, 3]``: the frame at points spread evenly over it."""
    rows, columns = (
        np.linspace(0, side - 1, points).astype(np.intp)
        for side, points in zip(image.shape[:2], GRID, strict=True)
    )
    return image[np.ix_(rows, columns)].astype(np.int16)


@lru_cache(maxsize=2)
def reference(path: str | bytes) -> Reference:
    """Decode a video with the ffmpeg program: every frame once, turned as the file asks."""
    with tempfile.TemporaryFile() as log:
        program = subprocess.Popen(
            [
                *(ffmpeg_program(), "-hide_banner", "-nostdin", "-threads", "1"),
                *("-i", b"file:" + os.fsencode(path), "-fps_mode", "passthrough"),
                *("-vf", "showinfo", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert program.stdout is not None
        sizes, points = [], []
        with program.stdout:
            while (image := _next_frame(program.stdout)) is not None:
                sizes.append(image.shape[:2])
                points.append(on_grid(image).astype(np.uint8))
        program.wait()
        log.seek(0)
        stamps = re.findall(rb"showinfo.* pts_time:\s*(-?[\d.e+-]+)", log.read())
    assert len(stamps) >= len(points), "the program timed fewer frames than it gave"
    times = np.array([float(stamp) for stamp in stamps[: len(points)]])
    return Reference(times, sizes, np.array(points).reshape(-1, *GRID, 3))


def _next_frame(stream: IO[bytes]) -> np.ndarray | None:
    """The next frame of a stream of PPM files, which state their own sizes."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()
    data = stream.read(width * height * 3)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def ffmpeg_program() -> str:
    """Where the program of the ``imageio-ffmpeg`` wheel is; the test is skipped without it."""
    return pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


def data_folder() -> Path | None:
    """The folder of reference videos, None where there is none."""
    folder = os.environ.get("VIDFUSE_TEST_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None
