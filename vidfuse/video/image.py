"""One still frame as RGB with 8 bits, by fixed rules that never look at other pixels.

Orientation flags are applied, palettes looked up, grey repeated over the channels, and what is
transparent is laid over black. Of 16 bits the high byte is kept (``value // 256``), for grey as
Pillow does it for colour; of grey with B stored bits, the highest eight. A frame is never
stretched to its own darkest and brightest pixel: that would make brightness mean something else
in every frame.
"""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image, ImageOps

from vidfuse.errors import InputError
from vidfuse.video.decoder import check_size
from vidfuse.video.frames import Pixels
from vidfuse.video.png import PngFile

# Pillow knows others too, some of which start programs (PostScript) or read neighbouring files.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Formats whose 16-bit grey some versions of Pillow open as 32-bit integers.
_SIXTEEN_BITS = ("PNG", "PPM")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def read_image(path: str, page: int = 0) -> Pixels:
    """Read a frame file.

    Args:
        path: The file.
        page: Index of the page, from 0.

    Returns:
        ``uint8 [H, W, 3]`` RGB.

    Raises:
        InputError: Its values have no fixed range (32 bits or floating point), or it is too large.
        OSError: Pixels are missing.
        Exception: Whatever Pillow raises on a file that is damaged or no frame.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # check_size sees to it, and damage shows in loading
        with Image.open(path, formats=FORMATS) as image:
            image.seek(page)
            check_size(path, image.width, image.height)
            png = PngFile(path) if image.format == "PNG" else None
            if png:
                png.check_announced()
            image.load()
            # Pixels that are missing at the end are zero, and few frames end so.
            if png and (png.interlaced or not _last_row(image).any()):
                png.check_whole()
            return np.asarray(_to_rgb(path, image))


def count_pages(path: str) -> int:
    """The number of pages of a frame file."""
    with Image.open(path, formats=FORMATS) as image:
        return getattr(image, "n_frames", 1)


def _last_row(image: Image.Image) -> np.ndarray:
    return np.asarray(image.crop((0, image.height - 1, image.width, image.height)))


def _to_rgb(path: str, image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)  # a copy would double the memory
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        return Image.fromarray(_high_bits(image, np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise InputError(
            path,
            f"a frame of {kind} has no fixed range of brightness",
            "Save the frames with 8 or 16 bits.",
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _high_bits(image: Image.Image, values: np.ndarray) -> Pixels:
    """The highest eight of a grey frame's bits; ``image`` knows what the file says of them."""
    bits, inverted = 16, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]  # of TIFF files only
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    high: Pixels = np.clip(values.astype(np.int64) >> (bits - 8), 0, 255).astype(np.uint8)
    return 255 - high if inverted else high
