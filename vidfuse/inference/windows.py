"""Sliding a clip model over a long video or a stream: the one place that knows of windows.

A video is sampled at even moments (``rate:R`` of `Sampling`). A window is a clip of T of these
samples, and windows begin ``step`` samples apart. The scores of a sample are the mean of those of
all windows that cover it, where a window counts the more the closer the sample is to its middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float16]
Scores = NDArray[np.float64]
Classify = Callable[[Features, NDArray[np.int64]], Scores]
BATCH = 64  # windows that are classified together, at most


class SlidingWindow:
    """Class probabilities of each sample of a video, whose features come a part at a time.

    Memory grows with the window and with the parts, not with the video.

    Args:
        length: Samples in a window, T. A video that has fewer is one window.
        step: Samples from the beginning of one window to that of the next. The last window ends
            with the video, so it may begin sooner.
        classify: Gives class probabilities ``[B, C]`` of features ``[B, T, D, g, g]``, of which the
            first ``lengths [B]`` count; or those of each sample ``[B, T, C]``.
    """

    def __init__(self, length: int, step: int, classify: Classify) -> None:
        assert 0 < step <= length
        self.length, self.step = length, step
        self._classify = classify
        self._weights = 1 - np.abs(np.linspace(-1, 1, length + 2)[1:-1])  # none of them is 0
        # Of samples that a window may still cover: features, and sums over windows.
        self._features: Features | None = None
        self._sums: Scores | None = None
        self._totals = np.zeros(0)
        self._next = 0  # the next window begins here
        self._covered = 0  # the last window ended here

    def add(self, features: Features) -> Scores:
        """Take over the next samples ``[n, D, g, g]``.

        Returns:
            Class probabilities ``[m, C]`` of samples, behind those that were returned so far, which
            no later window covers; ``[0, 0]`` where there are none.
        """
        before = self._features
        self._features = features if before is None else np.concatenate([before, features])
        starts = range(self._next, len(self._features) - self.length + 1, self.step)
        for first in range(0, len(starts), BATCH):
            self._score(starts[first : first + BATCH], self.length)
        self._next += self.step * len(starts)
        # The last window of all may begin up to a step before the next one would have.
        return self._give(self._next - self.step)

    def finish(self) -> Scores:
        """End the video.

        Returns:
            Class probabilities ``[m, C]`` of the samples that were not returned before.
        """
        count = 0 if self._features is None else len(self._features)
        if self._covered < count:
            length = min(self.length, count)
            self._score([count - length], length)
        return self._give(count)

    def _score(self, starts: Sequence[int], length: int) -> None:
        """Classify windows that begin at these samples; their scores go to the samples."""
        assert self._features is not None
        inside = np.arange(self.length).clip(max=length - 1)
        rows = np.array(starts)[:, None] + inside
        scores = self._classify(self._features[rows], np.full(len(starts), length))
        missing = len(self._features) - len(self._totals)
        if self._sums is None:
            self._sums = np.zeros((0, scores.shape[-1]))
        self._sums = np.pad(self._sums, ((0, missing), (0, 0)))
        self._totals = np.pad(self._totals, (0, missing))
        weights = self._weights[:length]
        if scores.ndim == 2:
            scores = scores[:, None]
        for start, row in zip(starts, scores, strict=True):
            self._sums[start : start + length] += weights[:, None] * row[:length]
            self._totals[start : start + length] += weights
        self._covered = starts[-1] + length

    def _give(self, count: int) -> Scores:
        """Scores of the first samples that are held, which are then dropped."""
        if count <= 0 or self._sums is None or self._features is None:
            return np.zeros((0, 0))
        scores = self._sums[:count] / self._totals[:count, None]
        self._features = self._features[count:]
        self._sums, self._totals = self._sums[count:], self._totals[count:]
        self._next -= count
        self._covered -= count
        return scores


class LastWindow:
    """Decides on the last samples, at even steps.

    Args:
        classify: Gives class probabilities ``[1, C]`` of features ``[1, T, D, g, g]`` and lengths
            ``[1]``; or those of each sample ``[1, T, C]``, of which the last counts.
        length: Samples in a window.
        step: Samples from one decision to the next.
        first: Samples before the first decision.
    """

    def __init__(self, classify: Classify, length: int, step: int, first: int) -> None:
        self._classify = classify
        self._features: deque[Features] = deque(maxlen=length)
        self._step = step
        self._wait = first
        self._decided = False

    def add(self, features: Features) -> Scores | None:
        """Take the next sample ``[D, g, g]``; returns class probabilities ``[C]`` if it decides."""
        self._features.append(features)
        self._wait -= 1
        return None if self._wait else self._decide()

    def finish(self) -> Scores | None:
        """Decide on a stream that ends before the first decision, if it has any sample."""
        return None if self._decided or not self._features else self._decide()

    def _decide(self) -> Scores:
        self._wait, self._decided = self._step, True
        window = np.stack(self._features)
        scores = self._classify(window[None], np.array([len(window)]))
        newest: Scores = scores.reshape(-1, scores.shape[-1])[-1]
        return newest
