"""Random views of frames. Teacher and student see the same view, so that what is learned is the
teacher's function and not its answer to one crop (Beyer et al., "Knowledge distillation: a good
teacher is patient and consistent", CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from scripts.distillation.material import Pixels

TEACHER_SIZE = 224
STUDENT_SIZE = 128
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Zoom:
    """How near views are.

    Attributes:
        whole: Share of views that show nearly the whole frame, as in use.
        smallest: Least share of the frame's area that the others show.
    """

    whole: float
    smallest: float


def random_view(image: Pixels, zoom: Zoom, rng: np.random.Generator) -> Pixels:
    """A random crop, flipped, recoloured: ``uint8 [224, 224, 3]``."""
    opened = Image.fromarray(image)
    opened = opened.resize((TEACHER_SIZE, TEACHER_SIZE), BILINEAR, box=_box(opened.size, zoom, rng))
    if rng.random() < 0.5:
        opened = ImageOps.mirror(opened)
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


def mix(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some views get a patch of another (CutMix) or are blended with one (mixup)."""
    mixed = views.copy()
    others = rng.permutation(len(views))
    for row, other in enumerate(others):
        chance = rng.random()
        if chance < 0.2:
            high, wide = rng.integers(TEACHER_SIZE // 4, TEACHER_SIZE * 3 // 4, 2)
            top, left = rng.integers(0, TEACHER_SIZE - high), rng.integers(0, TEACHER_SIZE - wide)
            patch = np.s_[top : top + high, left : left + wide]
            mixed[row][patch] = views[other][patch]
        elif chance < 0.3:
            share = rng.uniform(0.3, 0.7)
            blend = share * views[row] + (1 - share) * views[other].astype(np.float32)
            mixed[row] = blend.astype(np.uint8)
    return mixed


def smaller(view: Pixels) -> Pixels:
    """The student's copy of a view: ``uint8 [128, 128, 3]``."""
    size = (STUDENT_SIZE, STUDENT_SIZE)
    return np.asarray(Image.fromarray(view).resize(size, BILINEAR))
