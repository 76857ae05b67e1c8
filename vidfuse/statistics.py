"""Uncertainty of what is measured on clips: bootstrap, sign flips, Holm's correction, Wilson.

Clips of one group (cut from one film, showing one person) resemble each other, so they do not
count as independent observations: intervals and tests draw whole groups, here called clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
"""Bootstrap resamples: the 2.5 % tail then holds 50 of them."""
MAX_EXACT_GROUPS = 14
"""Up to here all 2^G sign flips are tried."""
MONTE_CARLO_FLIPS = 20_000
MOST_CELLS = 4_000_000
"""Random numbers that are in memory at once, at most."""
ROUNDING = 1e-12
"""Differences below this are rounding: sums in another order."""


def clusters_of(groups: Sequence[str | None] | None, clips: int) -> tuple[NDArray[np.int64], int]:
    """The cluster that each clip belongs to [N], as an index, and how many there are.

    Args:
        groups: What each clip was cut from. A clip with None is a cluster of its own, and so is
            every clip where `groups` is None.
        clips: Number of clips N.

    Raises:
        ValueError: There are more or fewer groups than clips.
    """
    if groups is None:
        return np.arange(clips), clips
    if len(groups) != clips:
        raise ValueError(f"{clips} clips need {clips} groups, not {len(groups)}")
    keys = [("clip", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys]), len(index)


def draw_clusters(count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw clusters for a bootstrap, with replacement.

    Args:
        count: How many clusters there are, and how many each resample draws.
        seed: The same seed draws the same clusters.

    Yields:
        Indices of clusters [rows, count], a few of the 2,000 resamples at a time.
    """
    generator = np.random.default_rng(seed)
    for rows in _chunks(RESAMPLES, count):
        yield generator.integers(0, count, size=(rows, count))


def percentile_interval(values: NDArray[np.float64]) -> list[float] | None:
    """The central 95 % [low, high] of resampled values [R]; None where they are all the same."""
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)] if high - low > ROUNDING else None


def mean_interval(
    values: ArrayLike, groups: Sequence[str | None] | None = None, *, seed: int = 0
) -> list[float] | None:
    """95 % bootstrap interval [low, high] of a mean over clips, which draws whole groups.

    Args:
        values: One number for each clip [N], such as the difference between two models.
        groups: As for `clusters_of`.
        seed: Seed of the bootstrap.

    Returns:
        None with a single group, or where all groups have the same mean.
    """
    each = np.asarray(values, dtype=float)
    clusters, count = clusters_of(groups, len(each))
    if count == 1:
        return None
    sums = np.bincount(clusters, weights=each, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    means = [
        sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1) for drawn in draw_clusters(count, seed)
    ]
    return percentile_interval(np.concatenate(means))


def wilson_interval(share: float, n: int) -> list[float]:
    """95 % score interval of a share among n observations (Wilson, 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [max(0.0, centre - half), min(1.0, centre + half)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected for their number (Holm, 1979).

    With all tests whose corrected value is below α called significant, the chance that any of them
    is so by accident is at most α, however the tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def paired_sign_flip(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> float:
    """Two-sided p-value of a paired randomisation test between two models on the same clips.

    If neither model is better, then within each group the two may be swapped, which flips the
    sign of the group's difference. The p-value is the share of sign flips whose total difference
    is at least as large as the observed one (Fisher, The Design of Experiments, 1935, section 21).
    All flips are tried with up to 14 groups; with more, 20,000 random ones, and the observed one
    counts among them (Phipson and Smyth, 2010), so that the answer is never 0.

    Args:
        scores_a: How good model A was on each clip [N], such as 1 for right and 0 for wrong;
            averaged over seeds first where there are several.
        scores_b: The same for model B.
        groups: What each clip was cut from; None makes every clip a group of its own.
        seed: Seed of the random flips.

    Raises:
        ValueError: The shapes do not fit, or a score is not finite.
    """
    a, b = np.asarray(scores_a, dtype=float), np.asarray(scores_b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"scores must be two rows of one length, not {a.shape} and {b.shape}")
    if not np.isfinite(a - b).all():
        raise ValueError("scores must be finite")
    clusters, count = clusters_of(groups, len(a))
    differences = np.bincount(clusters, weights=a - b, minlength=count)
    # A group without a difference is the same whatever its sign.
    differences = differences[np.abs(differences) > ROUNDING]
    observed = abs(differences.sum()) - 1e-9  # sums in another order differ by rounding
    g = len(differences)
    if g == 0:
        return 1.0
    if g <= MAX_EXACT_GROUPS:
        signs = 1 - 2 * ((np.arange(2**g)[:, None] >> np.arange(g)) & 1)
        return float((np.abs(signs @ differences) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for rows in _chunks(MONTE_CARLO_FLIPS, g):
        signs = 1 - 2 * generator.integers(0, 2, size=(rows, g), dtype=np.int8)
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (extreme + 1) / (MONTE_CARLO_FLIPS + 1)


def _chunks(rows: int, columns: int) -> list[int]:
    """Split rows so that a part of them times the columns stays within `MOST_CELLS`."""
    at_once = max(1, MOST_CELLS // columns)
    return [min(at_once, rows - start) for start in range(0, rows, at_once)]
