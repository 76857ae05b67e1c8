"""Accuracy, F1, their uncertainty, and a test between two models. Pure numpy, loaded lazily.

Clips of one group (cut from one film, showing one person) resemble each other, so they do not
count as independent observations: intervals and tests draw whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
"""Bootstrap resamples: the 2.5 % tail then holds 50 of them."""
FEW_UNITS = 10
"""With fewer groups (or clips) than this, a bootstrap interval is known to be too narrow."""
MAX_EXACT_GROUPS = 14
"""Up to here all 2^G sign flips are tried."""
MONTE_CARLO_FLIPS = 20_000


def summary(
    labels: ArrayLike,
    scores: ArrayLike,
    classes: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is reported about the predictions on one set of clips, ready for JSON.

    The prediction is the class with the highest score, the first of them in a tie. Macro averages
    run over the classes that occur in `labels`; a precision without any prediction counts as 0.
    The 95 % intervals are percentiles of a bootstrap over groups, or over clips where groups say
    nothing; each resample is averaged over the classes that occur in it. Where an interval cannot
    be estimated it is None, and `interval_method` says why.

    Args:
        labels: True classes [N] as indices into `classes`.
        scores: Scores, logits or probabilities [N, C].
        classes: Names of the C classes.
        groups: What each clip was cut from; a clip with None is a group of its own.
        seed: Seed of the bootstrap.

    Returns:
        accuracy, top5_accuracy (None with five classes or fewer), macro_precision, macro_recall,
        macro_f1, accuracy_interval and macro_f1_interval ([low, high] or None), interval_method,
        per_class (label, precision, recall, f1, support) and confusion_matrix (rows are the true
        classes, in the order of `classes`).

    Raises:
        ValueError: The shapes do not fit, a label is no class, or a score is not finite.
    """
    import numpy as np

    truth, scored = _checked(labels, scores, classes)
    n, c = scored.shape
    predicted = scored.argmax(axis=1)
    confusion = np.bincount(truth * c + predicted, minlength=c * c).reshape(c, c)
    hits, support = np.diagonal(confusion), confusion.sum(axis=1)
    precision, recall, f1 = _per_class(hits, confusion.sum(axis=0), support)
    occurs = support > 0
    accuracy = float(hits.sum() / n)
    accuracy_interval, f1_interval, method = _intervals(truth, [predicted], c, groups, seed)
    return {
        "accuracy": accuracy,
        "top5_accuracy": _top_k(truth, scored, 5) if c > 5 else None,
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "accuracy_interval": accuracy_interval,
        "macro_f1_interval": f1_interval,
        "interval_method": method,
        "per_class": [
            {
                "label": label,
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": int(support[k]),
            }
            for k, label in enumerate(classes)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def repeated_summary(
    labels: ArrayLike,
    predictions: ArrayLike,
    classes: int,
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy and macro F1 of several runs on the same clips, averaged over the runs.

    Each resample of the intervals draws the same groups for all runs: runs repeat the training and
    add no clips, so they must not make an interval narrower than the clips allow.

    Args:
        labels: True classes [N].
        predictions: Predicted classes [S, N] of S runs.
        classes: Number of classes C.
        groups: As for `summary`.
        seed: Seed of the bootstrap.

    Returns:
        accuracy, macro_f1, accuracy_interval, macro_f1_interval, interval_method as of `summary`,
        and accuracy_by_run [S].

    Raises:
        ValueError: The shapes do not fit.
    """
    import numpy as np

    truth, runs = np.asarray(labels), np.asarray(predictions)
    if runs.ndim != 2 or runs.shape[0] == 0 or truth.shape != runs.shape[1:]:
        raise ValueError(f"labels [N] need predictions [S, N], not {truth.shape} and {runs.shape}")
    accuracies = [float((run == truth).mean()) for run in runs]
    f1s = []
    for run in runs:
        support, guesses = (np.bincount(each, minlength=classes) for each in (truth, run))
        hits = np.bincount(truth[truth == run], minlength=classes)
        f1s.append(float(_per_class(hits, guesses, support)[2][support > 0].mean()))
    accuracy_interval, f1_interval, method = _intervals(truth, list(runs), classes, groups, seed)
    return {
        "accuracy": float(np.mean(accuracies)),
        "macro_f1": float(np.mean(f1s)),
        "accuracy_interval": accuracy_interval,
        "macro_f1_interval": f1_interval,
        "interval_method": method,
        "accuracy_by_run": accuracies,
    }


def mean_interval(
    values: ArrayLike, groups: Sequence[str | None] | None = None, *, seed: int = 0
) -> list[float] | None:
    """95 % bootstrap interval [low, high] of a mean over clips, which draws whole groups.

    Args:
        values: One number for each clip [N], such as the difference between two models.
        groups: As for `summary`.
        seed: Seed of the bootstrap.

    Returns:
        None with a single group, or where all groups have the same mean.
    """
    import numpy as np

    each = np.asarray(values, dtype=float)
    units, count = _units(groups, len(each))
    if count == 1:
        return None
    sums = np.bincount(units, weights=each, minlength=count)
    sizes = np.bincount(units, minlength=count)
    generator = np.random.default_rng(seed)
    means = []
    for rows in _chunks(RESAMPLES, count):
        drawn = generator.integers(0, count, size=(rows, count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return [float(low), float(high)] if high - low > 1e-12 else None


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
    import numpy as np

    a, b = np.asarray(scores_a, dtype=float), np.asarray(scores_b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"scores must be two rows of one length, not {a.shape} and {b.shape}")
    if not np.isfinite(a - b).all():
        raise ValueError("scores must be finite")
    units, count = _units(groups, len(a))
    differences = np.bincount(units, weights=a - b, minlength=count)
    # A group without a difference is the same whatever its sign.
    differences = differences[np.abs(differences) > 1e-12]
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


def _checked(
    labels: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    import numpy as np

    truth, scored = np.asarray(labels), np.asarray(scores, dtype=float)
    if truth.ndim != 1 or len(truth) == 0 or scored.shape != (len(truth), len(classes)):
        raise ValueError(
            f"{len(classes)} classes need labels [N] and scores [N, {len(classes)}] with N >= 1, "
            f"not {truth.shape} and {scored.shape}"
        )
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= len(classes):
        raise ValueError(f"labels must be integers from 0 to {len(classes) - 1}")
    if not np.isfinite(scored).all():
        raise ValueError("scores must be finite")
    return truth.astype(np.int64), scored


def _top_k(truth: NDArray[np.int64], scores: NDArray[np.float64], k: int) -> float:
    """Share of clips with the true class among the k best, earlier classes first in a tie."""
    import numpy as np

    of_truth = np.take_along_axis(scores, truth[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < truth[:, None]
    ahead = (scores > of_truth) | ((scores == of_truth) & earlier)
    return float((ahead.sum(axis=1) < k).mean())


def _per_class(hits: Any, predicted: Any, support: Any) -> tuple[Any, Any, Any]:
    """Precision, recall and F1 from counts of any one shape, with 0 for 0/0."""
    import numpy as np

    def ratio(part: Any, whole: Any) -> Any:
        return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)

    return ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, predicted + support)


def _units(groups: Sequence[str | None] | None, n: int) -> tuple[NDArray[np.int64], int]:
    """The independent unit that each clip belongs to [N], as an index, and how many there are."""
    import numpy as np

    if groups is None:
        return np.arange(n), n
    if len(groups) != n:
        raise ValueError(f"{n} clips need {n} groups, not {len(groups)}")
    keys = [("clip", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys]), len(index)


def _intervals(
    truth: NDArray[np.int64],
    runs: Sequence[NDArray[np.int64]],
    classes: int,
    groups: Sequence[str | None] | None,
    seed: int,
) -> tuple[list[float] | None, list[float] | None, str]:
    """95 % intervals of accuracy and macro F1, averaged over runs, and how they were made."""
    import numpy as np

    n = len(truth)
    units, count = _units(groups, n)
    kind = "clip" if count == n else "group"
    if count == 1:
        return None, None, f"none: a single {kind} says nothing about other {kind}s"
    # The same seed draws the same groups for each run.
    drawn = [_bootstrap(truth, run, classes, units, count, seed) for run in runs]
    accuracies, f1s = (np.mean([each[i] for each in drawn], axis=0) for i in range(2))
    method = f"{kind} bootstrap, {RESAMPLES} resamples, {count} {kind}s"
    if count < FEW_UNITS:
        method += f" (too narrow with fewer than {FEW_UNITS})"
    intervals: list[list[float] | None] = []
    for values in (accuracies, f1s):
        low, high = np.quantile(values, [0.025, 0.975])
        # Rounding alone can part two resamples that are equal.
        intervals.append([float(low), float(high)] if high - low > 1e-12 else None)
    if intervals[0] is None:
        # Every group is equally good, as when all clips are right. Resampling cannot see what
        # other groups might bring, so the interval is that of as many single observations.
        accuracy = float(np.mean([truth == run for run in runs]))
        intervals[0] = _wilson(accuracy, count)
        method = f"Wilson over {count} {kind}s, as all {kind}s have accuracy {accuracy:.4g}" + (
            "; none for macro F1" if intervals[1] is None else f"; macro F1: {method}"
        )
    elif intervals[1] is None:
        method += "; none for macro F1, which is the same in all resamples"
    return intervals[0], intervals[1], method


def _bootstrap(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: int,
    units: NDArray[np.int64],
    count: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and macro F1 [RESAMPLES] of resamples of whole units, with replacement."""
    import numpy as np

    def per_unit(of: NDArray[np.int64], chosen: NDArray[np.bool_] | slice) -> NDArray[np.float32]:
        """How often each class occurs in each unit [units, classes]."""
        cells = np.bincount((units * classes + of)[chosen], minlength=count * classes)
        # Counts below 2^24 are exact in float32, and only floats multiply fast.
        return cells.reshape(count, classes).astype(np.float32)

    hits = per_unit(truth, truth == predicted)
    support = per_unit(truth, slice(None))
    guesses = per_unit(predicted, slice(None))
    generator = np.random.default_rng(seed)
    accuracies, f1s = [], []
    for rows in _chunks(RESAMPLES, count):
        drawn = generator.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        times = times.astype(np.float32)
        right, of_class, as_class = times @ hits, times @ support, times @ guesses
        accuracies.append(right.sum(axis=1, dtype=float) / of_class.sum(axis=1, dtype=float))
        f1 = _per_class(right, as_class, of_class)[2]
        occurs = of_class > 0
        f1s.append((f1 * occurs).sum(axis=1) / occurs.sum(axis=1))
    return np.concatenate(accuracies), np.concatenate(f1s)


def _wilson(share: float, n: int) -> list[float]:
    """95 % score interval of a share among n observations (Wilson, 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _chunks(rows: int, columns: int, cells: int = 4_000_000) -> list[int]:
    """Split rows so that a part of them times the columns stays within a number of cells."""
    at_once = max(1, cells // columns)
    return [min(at_once, rows - start) for start in range(0, rows, at_once)]
