"""The numbered random views that the bundled backbone learns from, some of them of two frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vidfuse.adaptation.views import VIEW_SIZE, Zoom, random_view
from vidfuse.video.frames import Pixels

CUT, BLENDED = 0.2, 0.1  # share of views with a patch of another, and blended with one


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
