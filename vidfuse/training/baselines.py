"""Predictions that need no frame of a clip: baselines to report beside any accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidfuse.features.cache import EntryInfo

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


def majority(labels: Labels, known: NDArray[np.bool_], classes: int) -> Scores:
    """Scores ``[M, C]`` of the clips that are not known: always the most frequent known class."""
    scores = np.zeros(((~known).sum(), classes))
    scores[:, np.bincount(labels[known], minlength=classes).argmax()] = 1
    return scores


def geometry(
    infos: Sequence[EntryInfo], labels: Labels, known: NDArray[np.bool_], classes: int
) -> Scores:
    """Scores ``[M, C]`` of the clips that are not known, by clip geometry alone.

    The class of the known clip (1-NN) that is nearest in width, height and number of frames, each
    scaled to unit variance over the known clips.
    """
    shapes = np.array([(info.width, info.height, info.count) for info in infos], float)
    spread = shapes[known].std(0)
    shapes /= np.where(spread > 0, spread, 1)
    scores = np.zeros(((~known).sum(), classes))
    for row, shape in enumerate(shapes[~known]):  # all distances at once may need gigabytes
        nearest = np.linalg.norm(shapes[known] - shape, axis=1).argmin()
        scores[row, labels[known][nearest]] = 1
    return scores
