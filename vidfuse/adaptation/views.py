"""Random views of frames, which teacher and student both see, so that what is learned is the
teacher's function and not its answer to one crop (Beyer et al., "Knowledge distillation: a good
teacher is patient and consistent", CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from vidfuse.video.frames import Pixels

VIEW_SIZE = 224  # pixels, what teachers see
VIEWS = "views"  # their name among what belongs to a batch
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Zoom:
    """The range of views.

    Random crops show things larger than whole frames do, in use, at the same number of pixels
    (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019), so many views
    show nearly the whole frame.

    Attributes:
        whole: Share of views that show nearly the whole frame, as in use.
        smallest: Least share of the frame's area that the others show.
    """

    whole: float = 0.5
    smallest: float = 0.25


def random_view(
    image: Pixels, zoom: Zoom, rng: np.random.Generator, size: int = VIEW_SIZE
) -> Pixels:
    """A random crop, recoloured: ``uint8 [size, size, 3]``."""
    opened = Image.fromarray(image)
    opened = opened.resize((size, size), BILINEAR, box=_box(opened.size, zoom, rng))
    if rng.random() < 0.7:
        for kind in rng.permutation(3):
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
            opened = enhance(opened).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.1:
        opened = ImageOps.grayscale(opened).convert("RGB")
    if rng.random() < 0.1:
        opened = opened.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0)))
    return np.asarray(opened)


def _box(
    size: tuple[int, int], zoom: Zoom, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The part of a frame to show: left, top, right, bottom."""
    width, height = size
    if rng.random() < zoom.whole:
        side = min(width, height) * rng.uniform(0.85, 1.0)
        wide, high = side, side
    else:
        area = width * height * rng.uniform(zoom.smallest, 1.0)
        ratio = np.exp(rng.uniform(np.log(0.7), np.log(1.4)))
        wide = min(width, np.sqrt(area * ratio))
        high = min(height, np.sqrt(area / ratio))
    left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
    return left, top, left + wide, top + high


def resize(views: Tensor, size: int) -> Tensor:
    """Views ``uint8 [N, S, S, 3]`` as frames ``[N, size, size, 3]``, antialiased bilinear."""
    if views.shape[1] == size:
        return views
    images = views.permute(0, 3, 1, 2)
    smaller = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return smaller.permute(0, 2, 3, 1)
