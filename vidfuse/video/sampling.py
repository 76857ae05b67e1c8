"""Rules that choose frames of a clip: pure functions of the stream's timestamps.

Decoders disagree about how many frames a file has, so sampling works on presentation times. The
frame *on screen* at time t is the last one whose presentation time is not after t.

With presentation times ``s_0 < … < s_{N-1}`` and ``e`` the moment the last frame leaves the
screen:

* ``uniform``: the frames on screen at the centres of T equal parts,
  ``s_0 + (i + 1/2) (e - s_0) / T``.
* ``segment``: as ``uniform``, except in training, where the time in each part is drawn at random
  (TSN; Wang et al. 2016, "Temporal Segment Networks", section 3.1).
* ``dense``: T consecutive frames around the middle, from index ``(N - T) // 2``.
* ``stride:N``: every N-th frame from the first, at most T of them.
* ``windows:W@R``: for encoders that see W frames together, R a second apart: as many windows as
  the clip has room for side by side, one at least and T/W at most, each in the middle of its share
  of the clip. In a clip shorter than one window frames are closer, and may come more than once.

* ``rate:R``: for long videos: the frames on screen at the moments ``(k + 1/2) / R``, k = 0, 1, …,
  that lie in the clip, at most T of them and one at least; a frame may come more than once. Parts
  of a video have, together, the frames of the whole.

By the other rules, a clip with no more than T frames gives all of them, once each, in order.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidfuse.errors import UnknownNameError, UserError

MODES = ("uniform", "segment", "dense", "stride:N")
# Timestamps come from rational time bases: a centre that equals a timestamp must not fall one
# frame short because of rounding.
EPSILON = 1e-6

Times = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """The presentation times of a clip's frames.

    Attributes:
        times: ``[N]`` seconds from the start of the file, not decreasing.
        end: Time at which the last frame leaves the screen.
        start: Time at which the clip starts; None is its first frame. For frames that were picked
            from a clip, this is the clip's own start: picking T of the ``uniform`` picks of an odd
            multiple of T then gives what picking T of the clip gives.
    """

    times: Times
    end: float
    start: float | None = None

    @property
    def begin(self) -> float:
        """Time at which the clip starts."""
        return float(self.times[0]) if self.start is None else self.start

    def cut(self, start: float | None, end: float | None) -> FrameTimes:
        """The part in which a frame is on screen between ``start`` and ``end`` (exclusive)."""
        low = 0 if start is None else int(on_screen(self.times, np.array([start]))[0])
        high = len(self.times)
        if end is not None:
            high = int(np.searchsorted(self.times, end - EPSILON, side="left"))
        stop = self.end if end is None else min(self.end, end)
        if start is not None and start >= self.end:
            high = low
        return FrameTimes(self.times[low:high], stop)


def on_screen(times: Times, moments: Times) -> Indices:
    """Index of the frame on screen at each moment (the first one before anything is shown)."""
    return np.maximum(np.searchsorted(times, moments + EPSILON, side="right") - 1, 0)


def even_moments(rate: float, start: float, end: float) -> Times:
    """The moments ``(k + 1/2) / rate`` from ``start`` to ``end`` (exclusive), in seconds.

    Where there is none between the two, the middle between them.
    """
    first, stop = moments_before(rate, start), moments_before(rate, end)
    if stop <= first:
        return np.array([(start + end) / 2])
    return (np.arange(first, stop, dtype=np.float64) + 0.5) / rate


def moments_before(rate: float, end: float) -> int:
    """The number of moments ``(k + 1/2) / rate`` that are before ``end`` seconds."""
    return math.ceil((end - EPSILON) * rate - 0.5)


@dataclass(frozen=True, slots=True)
class Sampling:
    """A sampling rule, such as ``Sampling.parse("uniform")``.

    Attributes:
        mode: ``uniform``, ``segment``, ``dense``, ``stride``, ``windows`` or ``rate``.
        step: N of ``stride:N``, W of ``windows:W@R``; 1 otherwise.
        rate: R of ``windows:W@R`` and ``rate:R``, frames per second; 0 otherwise.
    """

    mode: str
    step: int = 1
    rate: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """Read ``uniform``, ``segment``, ``dense`` or ``stride:N``.

        Raises:
            UserError: For any other text.
        """
        mode, _, step = text.partition(":")
        if mode == "stride":
            if not (step.isdecimal() and int(step) > 0):
                raise UserError(
                    f"sampling '{text}' needs a whole number of frames above 0, as in stride:4"
                )
            return cls("stride", int(step))
        match = re.fullmatch(r"(?:windows:([1-9]\d{0,3})@|rate:)(\d{1,4}(?:\.\d{1,6})?)", text)
        if match and float(match[2]):
            return cls("windows" if match[1] else "rate", int(match[1] or 1), float(match[2]))
        if text not in MODES:
            raise UnknownNameError("sampling", text, MODES)
        return cls(text)

    def __str__(self) -> str:
        if self.mode == "windows":
            return f"windows:{self.step}@{self.rate:g}"
        if self.mode == "rate":
            return f"rate:{self.rate:.10g}"
        return f"{self.mode}:{self.step}" if self.mode == "stride" else self.mode

    def pick(
        self, frame_times: FrameTimes, count: int, rng: np.random.Generator | None = None
    ) -> Indices:
        """Choose at most ``count`` frames.

        Args:
            frame_times: The clip's presentation times, ``[N]``.
            count: T, the number of frames wanted.
            rng: Draws the times of ``segment`` in training; None takes the centres.

        Returns:
            ``[min(T, N)]`` indices into the frame times, not decreasing; of ``windows``, W for each
            window.
        """
        total = len(frame_times.times)
        if self.mode == "windows":
            return self._windows(frame_times, count // self.step)
        if self.mode == "rate":
            moments = even_moments(self.rate, frame_times.begin, frame_times.end)[:count]
            return on_screen(frame_times.times, moments)
        if self.mode == "stride":
            return np.arange(0, total, self.step)[:count]
        if total <= count:
            return np.arange(total)
        if self.mode == "dense":
            return np.arange(count) + (total - count) // 2
        inside = np.full(count, 0.5)
        if self.mode == "segment" and rng is not None:
            inside = rng.random(count)
        first = frame_times.begin
        moments = first + (np.arange(count) + inside) * (frame_times.end - first) / count
        return on_screen(frame_times.times, moments)

    def _windows(self, frame_times: FrameTimes, most: int) -> Indices:
        """Choose the frames of at most so many windows, one window after the other."""
        length = frame_times.end - frame_times.begin
        windows = int(np.clip((length + EPSILON) * self.rate // self.step, 1, most))
        share = length / windows
        apart = min(1 / self.rate, share / self.step)
        inside = share / 2 + (np.arange(self.step) + 0.5 - self.step / 2) * apart
        moments = frame_times.begin + np.arange(windows)[:, None] * share + inside
        return on_screen(frame_times.times, moments.ravel())
