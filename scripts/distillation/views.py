"""Random views of frames. Teacher and student see the same view, so that what is learned is the
teacher's function and not its answer to one crop (Beyer et al., "Knowledge distillation: a good
teacher is patient and consistent", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from scripts.distillation.material import Pixels

VIEW_SIZE = 224  # pixels, what teachers see
CUT, BLENDED = 0.2, 0.1  # share of views with a patch of another, and blended with one
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Zoom:
    """How near views are.

    Random crops show things larger than whole frames do, in use, at the same number of pixels
    (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019), so many views
    show nearly the whole frame.

    Attributes:
        whole: Share of views that show nearly the whole frame, as in use.
        smallest: Least share of the frame's area that the others show.
    """

    whole: float = 0.5
    smallest: float = 0.25


class Views:
    """Random views of frames, the same number of each frame; the n-th is the same in every run.

    Args:
        frames: Frames of any size.
        zoom: How near views are.
        seed: Decides everything.
    """

    def __init__(self, frames: Sequence[Pixels], zoom: Zoom, seed: int) -> None:
        self.frames, self.zoom, self.seed = frames, zoom, seed
        self.order = np.random.default_rng(seed).permutation(len(frames))

    def __getitem__(self, number: int) -> Pixels:
        rng = np.random.default_rng((self.seed, number))
        view = random_view(self._frame(number), self.zoom, rng)
        mixing = rng.random()
        if mixing < CUT + BLENDED:
            other = random_view(self._frame(int(rng.integers(len(self.frames)))), self.zoom, rng)
            return cut(view, other, rng) if mixing < CUT else blend(view, other, rng)
        return view

    def _frame(self, number: int) -> Pixels:
        frame: Pixels = self.frames[self.order[number % len(self.frames)]]
        return frame


def random_view(image: Pixels, zoom: Zoom, rng: np.random.Generator) -> Pixels:
    """A random crop, recoloured: ``uint8 [224, 224, 3]``."""
    opened = Image.fromarray(image)
    opened = opened.resize((VIEW_SIZE, VIEW_SIZE), BILINEAR, box=_box(opened.size, zoom, rng))
    if rng.random() < 0.7:
        for kind in rng.permutation(3):
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
            opened = enhance(opened).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.1:
        opened = ImageOps.grayscale(opened).convert("RGB")
    if rng.random() < 0.1:
        opened = opened.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0)))
    return np.asarray(opened)


def cut(view: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """A view with a patch of another: CutMix (Yun et al., ICCV 2019)."""
    side = int(VIEW_SIZE * np.sqrt(rng.uniform(0.1, 0.5)))
    top, left = rng.integers(VIEW_SIZE - side, size=2)
    patched = view.copy()
    part = np.s_[top : top + side, left : left + side]
    patched[part] = other[part]
    return patched


def blend(view: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """A weighted average of two views: mixup (Zhang et al., ICLR 2018)."""
    share = rng.uniform(0.5, 0.9)
    return np.asarray(Image.blend(Image.fromarray(other), Image.fromarray(view), share))


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
