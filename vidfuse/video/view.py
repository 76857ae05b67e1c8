"""Random views of a clip: crop, scale, aspect and colour, the same for all of its frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Self

from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""
DIGITS = 4
RANGES = {
    "scale": (0.8, 1.0),
    "aspect": (0.95, 1.05),
    "x": (0.0, 1.0),
    "y": (0.0, 1.0),
    "brightness": (0.85, 1.15),
    "contrast": (0.85, 1.15),
    "saturation": (0.8, 1.2),
}
"""Least and greatest value of each parameter of a view, between which all are equally likely."""


@dataclass(frozen=True, slots=True)
class View:
    """A random augmentation of a clip.

    Attributes:
        scale: Share of the side of the plain crop that is kept.
        aspect: Factor of the crop's width, by which its height is divided.
        x: Position of the crop, from 0 (the left of the plain crop) to 1 (its right).
        y: Position of the crop, from 0 (the top of the plain crop) to 1 (its bottom).
        brightness: Factor of all values.
        contrast: Factor of their distance from middle grey.
        saturation: Factor of their distance from the pixel's own grey (ITU-R BT.601 luma).
        flip: True for a view that is mirrored where mirroring is allowed.
    """

    scale: float
    aspect: float
    x: float
    y: float
    brightness: float
    contrast: float
    saturation: float
    flip: bool

    @classmethod
    def draw(cls, key: str, number: int) -> Self:
        """Draw a view of a clip, the same in every process and on every machine.

        Args:
            key: The key of the clip's entry in the cache: a digest of its content and segment.
            number: Number of the view, from 1.
        """
        random = Random(int(key, 16) + number)
        values = {name: round(random.uniform(*limits), DIGITS) for name, limits in RANGES.items()}
        return cls(**values, flip=random.random() < 0.5)

    def to_dict(self) -> dict[str, float]:
        """All parameters, ready for JSON."""
        return asdict(self)

    def crop(self, plain: Box) -> Box:
        """The part of the plain crop that is shown."""
        left, top, right, bottom = plain
        across = min(1.0, self.scale * self.aspect) * (right - left)
        down = min(1.0, self.scale / self.aspect) * (bottom - top)
        left, top = left + self.x * (right - left - across), top + self.y * (bottom - top - down)
        return left, top, min(right, left + across), min(bottom, top + down)

    def recolour(self, image: Image.Image) -> Image.Image:
        """Change the colours of an RGB image."""
        grey = image.convert("L").convert("RGB")
        levels = [(value * self.brightness - 127.5) * self.contrast + 127.5 for value in range(256)]
        table = [min(255, max(0, round(level))) for level in levels]
        return Image.blend(grey, image, self.saturation).point(table * 3)
