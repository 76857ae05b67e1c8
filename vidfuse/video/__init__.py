"""From video files to frames: sampling, decoding, isolated decode processes."""

from __future__ import annotations

from typing import Literal

Crop = Literal["center", "pad", "squash"]
CROPS: tuple[Crop, ...] = ("center", "pad", "squash")
Interpolation = Literal["bilinear", "bicubic"]
DEFAULT_FPS = 25.0  # frames per second of a clip stored as frames
