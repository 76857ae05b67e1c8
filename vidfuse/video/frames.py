"""Pictures of a clip, what to ask for, and how a picture becomes a network's input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidfuse.data.stamp import Stamp
from vidfuse.video.sampling import Times

Pictures = NDArray[np.uint8]
Crop = Literal["center", "pad", "squash"]
CROPS: tuple[Crop, ...] = ("center", "pad", "squash")
DEFAULT_FPS = 25.0  # pictures per second of a clip stored as pictures


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """What to read of one clip.

    Attributes:
        path: The video file or frame folder.
        sampling: A rule that ``Sampling.parse`` reads.
        frames: The largest number of pictures wanted, T.
        start: First second of the clip in the file; None is the beginning.
        end: Second at which the clip ends (exclusive); None is the end of the file.
        size: Side of the square pictures to return, in pixels; None keeps them as they are.
        crop: How a picture becomes a square; see ``square``.
        fps: Pictures per second of a clip that does not say, such as a frame folder.
        mirrored: Whether the pictures are mirrored left to right.
        only: Which of the pictures that the rule chooses are read, in order of time, from 0; None
            is all of them.
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
    only: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Frames:
    """Pictures read from a clip.

    Attributes:
        pictures: ``uint8 [T, H, W, 3]`` RGB, rotation flag applied.
        times: ``[T]`` presentation times in seconds from the start of the file.
        start: Presentation time of the clip's first picture.
        end: When the clip's last picture leaves the screen.
        count: How many pictures the whole clip has, N.
        width: Width of the pictures as shown, before resizing, in pixels; 0 where none was read.
        height: Likewise their height.
        decoder: Name of the decoder that read them.
        warnings: What went wrong without being fatal, one line each.
        candidates: How many pictures the rule chose, of which these are all or some.
        decoded: How many were decoded to find these: what is compressed must often be decoded from
            an earlier picture on.
        stamp: The file's, which was the same before and after; None where it changed meanwhile.
    """

    pictures: Pictures
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

    def header(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        header = {name: getattr(self, name) for name in self.__slots__ if name != "pictures"}
        return header | {"times": self.times.tolist(), "shape": list(self.pictures.shape)}

    @classmethod
    def from_header(cls, header: dict[str, Any], payload: bytes) -> Frames:
        """The inverse of ``header`` with the pictures' bytes beside it."""
        fields = dict(header)
        shape = fields.pop("shape")
        fields["times"] = np.asarray(fields["times"], dtype=np.float64)
        fields["stamp"] = Stamp(*fields["stamp"]) if fields["stamp"] else None
        return cls(pictures=np.frombuffer(payload, np.uint8).reshape(shape), **fields)


def request_to_dict(request: FrameRequest) -> dict[str, Any]:
    """A request ready for JSON."""
    return asdict(request)


def square(picture: Pictures, size: int, crop: Crop) -> Pictures:
    """Make a picture ``[size, size, 3]`` with antialiased bilinear resizing.

    ``center`` scales the short side to ``size`` and keeps the middle, ``pad`` scales the long
    side and puts black bars beside the picture, ``squash`` ignores the aspect ratio.
    """
    height, width = picture.shape[:2]
    if (height, width) == (size, size):
        return picture
    image = Image.fromarray(picture)
    bilinear = Image.Resampling.BILINEAR
    if crop == "squash":
        return np.asarray(image.resize((size, size), bilinear))
    if crop == "center":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), bilinear, box=box))
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (size, size))
    canvas.paste(image.resize(inner, bilinear), ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return np.asarray(canvas)


def squares(frames: list[Pictures], size: int) -> Pictures:
    """The middle of several frames as ``[T, size, size, 3]``; see `square`."""
    return np.stack([square(frame, size, "center") for frame in frames])


class Fitter:
    """Brings each frame of a clip to its size as it is decoded, so that no two are held in full.

    Args:
        size: Side of the square frames, in pixels; None leaves them as they are, and a stream that
            changes its size midway follows its first frame.
        crop: How a frame becomes a square; see `square`.
        mirrored: Whether frames are mirrored left to right.

    Attributes:
        width: Width of the first frame before it was resized, in pixels; 0 before there is one.
        height: Likewise its height.
    """

    def __init__(self, size: int | None, crop: Crop = "center", mirrored: bool = False) -> None:
        self.size = size
        self.crop = crop
        self.mirrored = mirrored
        self.width = self.height = 0

    def __call__(self, frame: Pictures) -> Pictures:
        """A frame ``uint8 [H, W, 3]`` as it is wanted."""
        if not self.width:
            self.height, self.width = frame.shape[:2]
        if self.size is not None:
            fitted = square(frame, self.size, self.crop)
        elif frame.shape[:2] == (self.height, self.width):
            fitted = frame
        else:
            fitted = np.asarray(Image.fromarray(frame).resize((self.width, self.height)))
        return fitted[:, ::-1] if self.mirrored else fitted

    def stack(self, frames: list[Pictures]) -> Pictures:
        """Fitted frames as ``[T, H, W, 3]``."""
        if not frames:
            return np.zeros((0, self.size or 0, self.size or 0, 3), np.uint8)
        return np.stack(frames)
