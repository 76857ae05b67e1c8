"""Requests for frames of a clip, the frames, and fitting them to a network's input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidfuse.data.content import Stamp
from vidfuse.video import DEFAULT_FPS, Crop, Interpolation
from vidfuse.video.sampling import Times
from vidfuse.video.view import Box, View

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """A request for frames of one clip.

    Attributes:
        path: The video file or frame folder.
        sampling: A rule that ``Sampling.parse`` reads.
        frames: The largest number of frames wanted, T.
        start: First second of the clip in the file; None is the beginning.
        end: Second at which the clip ends (exclusive); None is the end of the file.
        size: Side of the square frames to return, in pixels; None keeps them as they are.
        crop: Way to make a frame a square; see ``square``.
        fps: Frames per second of a clip that does not say, such as a frame folder.
        mirrored: True for frames mirrored left to right.
        interpolation: How frames are resized.
        crop_fraction: Share of the short side that the square of ``center`` covers.
        only: Indices of the frames to read among those that the rule chooses, in order of time,
            from 0; None is all of them.
        view: Crop and colours of frames that have a size; None is the plain frame.
        once: True where a frame that is chosen several times is read once; see `Frames.repeats`.
    """

    path: str
    sampling: str
    frames: int
    start: float | None = None
    end: float | None = None
    size: int | None = None
    crop: Crop = "center"
    fps: float = DEFAULT_FPS
    mirrored: bool = False
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0
    only: tuple[int, ...] | None = None
    view: View | None = None
    once: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``; what is left out is as usual."""
        view = values.get("view")
        return cls(**{**values, "view": View(**view) if view else None})


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames read from a clip.

    Attributes:
        pixels: ``uint8 [T, H, W, 3]`` RGB, rotation flag applied.
        times: ``[T]`` presentation times in seconds from the start of the file.
        start: Presentation time of the clip's first frame.
        end: Time at which the clip's last frame leaves the screen.
        count: Number of frames of the whole clip, N.
        width: Width of the frames as shown, before resizing, in pixels; 0 where none was read.
        height: Likewise their height.
        decoder: Name of the decoder that read them.
        warnings: Problems that were not fatal, one line each.
        candidates: Number of frames that the rule chose, of which these are all or some.
        decoded: Number of frames decoded for these: decoding often begins at an earlier one.
        stamp: The file's, which was the same before and after; None where it changed meanwhile.
        repeats: ``[T]`` how often each frame was chosen, where each comes once; else None.
    """

    pixels: Pixels
    times: Times
    start: float
    end: float
    count: int
    width: int
    height: int
    decoder: str
    warnings: list[str] = field(default_factory=list)
    candidates: int = 0
    decoded: int = 0
    stamp: Stamp | None = None
    repeats: list[int] | None = None

    def header(self) -> dict[str, Any]:
        """Everything but the frames, ready for JSON."""
        header = {name: getattr(self, name) for name in self.__slots__ if name != "pixels"}
        return header | {"times": self.times.tolist(), "shape": list(self.pixels.shape)}


def square(
    image: Pixels,
    size: int,
    crop: Crop,
    interpolation: Interpolation = "bilinear",
    crop_fraction: float = 1.0,
    view: View | None = None,
) -> Pixels:
    """Make a frame ``[size, size, 3]`` with antialiased resizing.

    ``center`` scales the short side to ``size`` and keeps the middle, ``pad`` scales the long
    side and puts black bars beside the frame, ``squash`` ignores the aspect ratio. A view does so
    with a part of what is kept, and in other colours.

    Args:
        image: ``uint8 [H, W, 3]``.
        size: Side of the square, in pixels.
        crop: Way to make it a square.
        interpolation: How it is resized.
        crop_fraction: With ``center``, the share of the short side that is kept.
        view: Crop and colours; None is the plain frame.
    """
    height, width = image.shape[:2]
    whole = crop != "center" or crop_fraction == 1
    if (height, width) == (size, size) and whole and view is None:
        return image
    box: Box = (0, 0, width, height)
    if crop == "center":
        box = _middle(width, height, size, crop_fraction)
    if view is not None:
        box = view.crop(box)
    inner = (size, size)
    if crop == "pad":
        across, down = box[2] - box[0], box[3] - box[1]
        scale = size / max(across, down)
        inner = (max(1, round(across * scale)), max(1, round(down * scale)))
    method = Image.Resampling[interpolation.upper()]
    fitted = Image.fromarray(image).resize(inner, method, box=box)
    if view is not None:
        fitted = view.recolour(fitted)
    if inner != (size, size):
        canvas = Image.new("RGB", (size, size))
        canvas.paste(fitted, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        fitted = canvas
    return np.asarray(fitted)


def _middle(width: int, height: int, size: int, fraction: float) -> Box:
    """Left, top, right and bottom of the square in the middle of a frame."""
    side = min(width, height) * fraction
    left, top = (width - side) / 2, (height - side) / 2
    if fraction < 1:
        # As encoders were trained: resized first, and then cut at whole pixels.
        scale = side / size
        left, top = (min(round(each / scale) * scale, 2 * each) for each in (left, top))
    return left, top, left + side, top + side


def squares(frames: list[Pixels], size: int) -> Pixels:
    """The middle of several frames as ``[T, size, size, 3]``; see `square`."""
    return np.stack([square(frame, size, "center") for frame in frames])


class Fitter:
    """Brings each frame of a clip to its size as it is decoded, so that no two are held in full.

    Args:
        size: Side of the square frames, in pixels; None leaves them as they are, and a stream that
            changes its size midway follows its first frame.
        crop: Way to make a frame a square; see `square`.
        mirrored: True to mirror frames left to right.
        interpolation: How frames are resized.
        crop_fraction: Share of the short side that the square of ``center`` covers.
        view: Crop and colours of frames that have a size; None is the plain frame.

    Attributes:
        width: Width of the first frame before it was resized, in pixels; 0 before there is one.
        height: Likewise its height.
    """

    def __init__(
        self,
        size: int | None,
        crop: Crop = "center",
        mirrored: bool = False,
        interpolation: Interpolation = "bilinear",
        crop_fraction: float = 1.0,
        view: View | None = None,
    ) -> None:
        self.size = size
        self.crop = crop
        self.mirrored = mirrored
        self.interpolation = interpolation
        self.crop_fraction = crop_fraction
        self.view = view
        self.width = self.height = 0

    def __call__(self, frame: Pixels) -> Pixels:
        """A frame ``uint8 [H, W, 3]`` as it is wanted."""
        if not self.width:
            self.height, self.width = frame.shape[:2]
        if self.size is not None:
            fitted = square(
                frame, self.size, self.crop, self.interpolation, self.crop_fraction, self.view
            )
        elif frame.shape[:2] == (self.height, self.width):
            fitted = frame
        else:
            fitted = np.asarray(Image.fromarray(frame).resize((self.width, self.height)))
        return fitted[:, ::-1] if self.mirrored else fitted

    def stack(self, frames: list[Pixels]) -> Pixels:
        """Fitted frames as ``[T, H, W, 3]``."""
        if not frames:
            return np.zeros((0, self.size or 0, self.size or 0, 3), np.uint8)
        return np.stack(frames)
