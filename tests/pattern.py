"""Videos of FFmpeg's test pattern, in the encoding that a test is about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg


def write_pattern(path: Path, options: str, *, rate: int, seconds: int) -> Path:
    """Encode a pattern that moves, 64 × 48.

    Args:
        path: The video.
        options: FFmpeg's, for the encoder and the container.
        rate: Frames per second.
        seconds: Length.
    """
    source = f"-f lavfi -i testsrc2=size=64x48:rate={rate}:duration={seconds} -threads 1"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source.split()]
    subprocess.run([*command, *options.split(), str(path)], check=True)
    return path
