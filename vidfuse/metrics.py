"""Accuracy, F1 and top-k of predictions, with intervals that respect groups of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidfuse.statistics import (
    RESAMPLES,
    clusters_of,
    draw_clusters,
    percentile_interval,
    wilson_interval,
)

FEW_GROUPS = 10
"""With fewer groups (or clips) than this, a bootstrap interval is known to be too narrow."""


def summary(
    labels: ArrayLike,
    scores: ArrayLike,
    classes: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """All that is reported about the predictions on one set of clips, ready for JSON.

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
    truth, scored = _checked(labels, scores, classes)
    n, c = scored.shape
    predicted = scored.argmax(axis=1)
    confusion = np.bincount(truth * c + predicted, minlength=c * c).reshape(c, c)
    hits, support = np.diagonal(confusion), confusion.sum(axis=1)
    guesses = confusion.sum(axis=0)
    precision, recall = hits / np.maximum(guesses, 1), hits / np.maximum(support, 1)
    f1 = _f1(hits, guesses, support)
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
    truth, runs = np.asarray(labels), np.asarray(predictions)
    if runs.ndim != 2 or runs.shape[0] == 0 or truth.shape != runs.shape[1:]:
        raise ValueError(f"labels [N] need predictions [S, N], not {truth.shape} and {runs.shape}")
    accuracies = [float((run == truth).mean()) for run in runs]
    f1s = []
    for run in runs:
        support, guesses = (np.bincount(each, minlength=classes) for each in (truth, run))
        hits = np.bincount(truth[truth == run], minlength=classes)
        f1s.append(float(_f1(hits, guesses, support)[support > 0].mean()))
    accuracy_interval, f1_interval, method = _intervals(truth, list(runs), classes, groups, seed)
    return {
        "accuracy": float(np.mean(accuracies)),
        "macro_f1": float(np.mean(f1s)),
        "accuracy_interval": accuracy_interval,
        "macro_f1_interval": f1_interval,
        "interval_method": method,
        "accuracy_by_run": accuracies,
    }


def _checked(
    labels: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
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
    of_truth = np.take_along_axis(scores, truth[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < truth[:, None]
    before = (scores > of_truth) | ((scores == of_truth) & earlier)
    return float((before.sum(axis=1) < k).mean())


def _f1(hits: NDArray[Any], predicted: NDArray[Any], support: NDArray[Any]) -> NDArray[np.float64]:
    """F1 of each class from counts of any one shape; 0 where it neither is nor is predicted."""
    f1: NDArray[np.float64] = (2 * hits / np.maximum(predicted + support, 1)).astype(float)
    return f1


def _intervals(
    truth: NDArray[np.int64],
    runs: Sequence[NDArray[np.int64]],
    classes: int,
    groups: Sequence[str | None] | None,
    seed: int,
) -> tuple[list[float] | None, list[float] | None, str]:
    """95 % intervals of accuracy and macro F1, averaged over runs, and their method."""
    n = len(truth)
    clusters, count = clusters_of(groups, n)
    kind = "clip" if count == n else "group"
    if count == 1:
        return None, None, f"none: a single {kind} says nothing about other {kind}s"
    # The same seed draws the same groups for each run.
    drawn = [_bootstrap(truth, run, classes, clusters, count, seed) for run in runs]
    accuracies, f1s = (np.mean([each[i] for each in drawn], axis=0) for i in range(2))
    method = f"{kind} bootstrap, {RESAMPLES} resamples, {count} {kind}s"
    if count < FEW_GROUPS:
        method += f" (too narrow with fewer than {FEW_GROUPS})"
    of_accuracy, of_f1 = percentile_interval(accuracies), percentile_interval(f1s)
    if of_accuracy is None:
        # Every group is equally good, as when all clips are right. Resampling cannot see what
        # other groups might bring, so the interval is that of as many single observations.
        accuracy = float(np.mean([truth == run for run in runs]))
        of_accuracy = wilson_interval(accuracy, count)
        method = f"Wilson over {count} {kind}s, as all {kind}s have accuracy {accuracy:.4g}" + (
            "; none for macro F1" if of_f1 is None else f"; macro F1: {method}"
        )
    elif of_f1 is None:
        method += "; none for macro F1, which is the same in all resamples"
    return of_accuracy, of_f1, method


def _bootstrap(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: int,
    clusters: NDArray[np.int64],
    count: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and macro F1 [RESAMPLES] of resamples of whole clusters, with replacement."""
    shape, cells = (count, classes), count * classes
    of_truth, of_guess = clusters * classes + truth, clusters * classes + predicted
    # How often each class occurs in each cluster [count, classes]. Counts below 2^24 are exact in
    # float32, and only floats multiply fast.
    hits, support, guesses = (
        np.bincount(each, minlength=cells).reshape(shape).astype(np.float32)
        for each in (of_truth[truth == predicted], of_truth, of_guess)
    )
    accuracies, f1s = [], []
    for drawn in draw_clusters(count, seed):
        rows = len(drawn)
        flat = (drawn + count * np.arange(rows)[:, None]).ravel()
        times = np.bincount(flat, minlength=rows * count).reshape(rows, count).astype(np.float32)
        right, of_class, as_class = times @ hits, times @ support, times @ guesses
        accuracies.append(right.sum(axis=1, dtype=float) / of_class.sum(axis=1, dtype=float))
        occurs = of_class > 0
        f1s.append((_f1(right, as_class, of_class) * occurs).sum(axis=1) / occurs.sum(axis=1))
    return np.concatenate(accuracies), np.concatenate(f1s)
