"""Finding where a clip lies in a video, from packets or from small frames: pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidfuse.video.packets import PacketList
from vidfuse.video.sampling import Times, on_screen

Vectors = NDArray[np.float32]
"""``[T, P]``: frames as rows of P grey values from 0 to 255."""

APART = 1.0  # seconds between two places that are not the same one, slightly off
NEAREST = 0.002  # seconds to which containers round times, at most
LEAST_CHANGE = 0.5  # grey levels, root mean square: what differs less from the mean frame is noise


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an original at which a clip may lie.

    Attributes:
        offset: Seconds of the original minus those of the clip.
        score: Correlation of the frames, 1 at most.
    """

    offset: float
    score: float


def offsets_by_packets(clip: PacketList, original: PacketList) -> list[float]:
    """Seconds by which all packets of a clip lie later in an original; several where it repeats.

    Args:
        clip: What may have been copied.
        original: From what.

    Returns:
        Every offset at which each packet of the clip is in the original, byte for byte.
    """
    order = np.argsort(original.digests, kind="stable")
    digests, times = original.digests[order], original.times[order]
    first = np.searchsorted(digests, clip.digests, side="left")
    last = np.searchsorted(digests, clip.digests, side="right")
    if not len(first) or (first == last).any():
        return []
    rarest = int(np.argmin(last - first))
    frame = float(np.median(np.diff(np.sort(original.times)))) if len(times) > 1 else 1.0
    tolerance = max(frame / 2, NEAREST)
    return sorted(
        float(candidate)
        for candidate in times[first[rarest] : last[rarest]] - clip.times[rarest]
        if all(
            np.abs(times[low:high] - time - candidate).min() <= tolerance
            for low, high, time in zip(first, last, clip.times, strict=True)
        )
    )


def as_vectors(pixels: NDArray[np.uint8]) -> Vectors:
    """Frames ``uint8 [T, H, W, 3]`` in grey, without their mean brightness."""
    grey = pixels.mean(axis=3, dtype=np.float32).reshape(len(pixels), -1)
    return np.asarray(grey - grey.mean(axis=1, keepdims=True), np.float32)


def best_places(
    clip: Vectors, original: Vectors, mean: Vectors, rate: float, count: int
) -> list[Place]:
    """The places in an original at which a clip correlates best, ``APART`` from each other.

    What all frames of the original have in common is taken away first: of a camera that stands
    still, all moments look alike.

    Args:
        clip: ``[n, P]``, at the moments ``(k + 1/2) / rate``.
        original: ``[N, P]``, likewise; rows of NaN where it cannot be read.
        mean: ``[P]``, the mean frame of the original.
        rate: Frames per second of both.
        count: How many places, at most.
    """
    small, large = clip - mean, original - mean
    size, total = len(small), len(large)
    norm = float(np.sqrt((small**2).sum()))
    if size > total or norm < LEAST_CHANGE * np.sqrt(small.size):
        return []
    missing = np.isnan(large).any(axis=1)
    large = np.where(missing[:, None], 0, large)
    products = large @ small.T  # [N, n]
    starts = np.arange(total - size + 1)
    sums = np.zeros(len(starts))
    for j in range(size):
        sums += products[j : j + len(starts), j]
    energy = np.concatenate([[0.0], np.cumsum((large**2).sum(axis=1, dtype=np.float64))])
    gaps = np.concatenate([[0], np.cumsum(missing)])
    window = np.sqrt(np.maximum(energy[starts + size] - energy[starts], 1e-9))
    scores = sums / (window * norm)
    scores[gaps[starts + size] > gaps[starts]] = -1
    found: list[Place] = []
    while len(found) < count and scores.max(initial=-1) > 0:
        best = int(scores.argmax())
        found.append(Place(best / rate, float(scores[best])))
        near = round(APART * rate)
        scores[max(best - near, 0) : best + near + 1] = -1
    return found


def refine(
    clip: Vectors,
    clip_times: Times,
    original: Vectors,
    original_times: Times,
    mean: Vectors,
    about: float,
    reach: float,
) -> Place:
    """The offset near a place at which frames correlate best, to the frame of the original.

    Args:
        clip: ``[n, P]``, frames of the clip.
        clip_times: ``[n]``, when they are shown, in seconds of the clip.
        original: ``[N, P]``, all frames of the original around the place.
        original_times: ``[N]``, when they are shown.
        mean: ``[P]``, the mean frame of the original.
        about: The offset to look near, in seconds.
        reach: How far from it, in seconds.
    """
    small, large = clip - mean, original - mean
    small_norm = float(np.sqrt((small**2).sum()))
    frame = float(np.median(np.diff(original_times))) if len(original_times) > 1 else 0.04
    offsets = original_times - clip_times[0]
    best = Place(about, -1.0)
    for offset in offsets[np.abs(offsets - about) <= reach]:
        # A quarter of a frame later, since containers round times.
        shown = large[on_screen(original_times, clip_times + offset + frame / 4)]
        norm = float(np.sqrt((shown**2).sum())) * small_norm
        score = float((shown * small).sum()) / max(norm, 1e-9)
        if score > best.score:
            best = Place(float(offset), score)
    return best
