"""A recommendation in words, by a rule that is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.comparison.config import REFERENCE
from vidfuse.comparison.leaderboard import Row
from vidfuse.statistics import MAX_EXACT_GROUPS, MONTE_CARLO_FLIPS, paired_sign_flip

ALPHA = 0.05
RULE = (
    "The rule: of the heads that are significantly better than `mean` (Holm-corrected p < 0.05) "
    "and not distinguishable from the best one (p >= 0.05, uncorrected), the one with the fewest "
    "multiply-adds; `mean` where no head is better than it; none where the best head is not "
    "significantly better than the majority class and clip geometry."
)
Shares = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Advice:
    """The head that is recommended.

    Attributes:
        head: The head, None where none is worth taking.
        text: The reasons, in sentences.
    """

    head: str | None
    text: str


def advise(
    rows: Sequence[Row], heads: Shares, baselines: Shares, groups: Sequence[str | None]
) -> Advice:
    """Recommend a head.

    Args:
        rows: The leaderboard, best first, with costs.
        heads: Share of the seeds in which each head was right on each clip [N].
        baselines: The same for what needs no frame.
        groups: Group of each clip.
    """
    best = rows[0]
    name = max(baselines, key=lambda each: baselines[each].mean())
    p_value = paired_sign_flip(heads[best["name"]], baselines[name], groups)
    above = best["accuracy"] - baselines[name].mean()
    if above <= 0 or p_value >= ALPHA:
        return Advice(None, _nothing(best, name, float(baselines[name].mean()), p_value, groups))
    better = [
        row
        for row in rows
        if row["p_value"] is not None and row["p_value"] < ALPHA and row["difference"] > 0
    ]
    if not better:
        return _not_separated(rows, groups)
    as_good = [
        row
        for row in better
        if row is best or paired_sign_flip(heads[best["name"]], heads[row["name"]], groups) >= ALPHA
    ]
    taken = min(as_good or better, key=_cost)
    return Advice(taken["name"], " ".join(_taken(taken, best, len(as_good), len(better))))


def advise_of_several(rows: Sequence[Row], advices: Mapping[str, Advice]) -> Advice:
    """Recommend one of several encoders, that of the best row, and a head on it.

    Args:
        rows: Those of all encoders, the best first, with their differences to it.
        advices: What is recommended of each encoder by itself.
    """
    best, others = rows[0], rows[1:]
    near = [row for row in others if row["to_best_p_value"] >= ALPHA]
    text = f"`{best['name']}` on `{best['backbone']}` is the best, with {best['accuracy']:.3f}"
    if others:
        verb = "is" if len(near) == 1 else "are"
        those = f"{len(near)} of the {len(others)} others {verb} not distinguishable"
        if not near:
            those = f"all {len(others)} others are distinguishable"
        if len(others) == 1:
            those = f"the other is {'not ' if near else ''}distinguishable"
        text += f"; {those} from it (p {'>=' if near else '<'} 0.05, uncorrected)"
    text += "."
    kept = {row["backbone"] for row in (best, *near)}
    lost = dict.fromkeys(row["backbone"] for row in others if row["backbone"] not in kept)
    if lost:
        names = " and ".join(f"`{name}`" for name in lost)
        text += f" With {names} every head is significantly worse."
    own = advices[best["backbone"]]
    return Advice(own.head, f"{text} Of the heads on `{best['backbone']}`: {own.text}")


def smallest_p_value(groups: Sequence[str | None]) -> float:
    """The smallest p-value that a sign-flip test over these groups can have."""
    count, _ = _clusters(groups)
    if count <= MAX_EXACT_GROUPS:
        return float(2.0 ** (1 - count))
    return max(float(2.0 ** (1 - count)), 1 / (MONTE_CARLO_FLIPS + 1))


def _clusters(groups: Sequence[str | None]) -> tuple[int, str]:
    """Number and name of the clusters a test can flip; a clip without a group is its own."""
    known = set(groups) - {None}
    return len(known) + sum(group is None for group in groups), "groups" if known else "clips"


def _cost(row: Row) -> tuple[Any, ...]:
    return row["multiply_adds"], row["parameters"], row["name"]


def _nothing(
    best: Row, name: str, accuracy: float, p_value: float, groups: Sequence[str | None]
) -> str:
    what = {"majority": "always the most frequent class", "geometry": "clip geometry alone"}[name]
    text = (
        f"Nothing here is shown to beat {what} ({accuracy:.3f}): the best head, "
        f"`{best['name']}`, has {best['accuracy']:.3f}"
    )
    if best["accuracy"] > accuracy:
        text += f" (p = {p_value:.2g})"
    text += (
        ". Take none of them: another backbone or layer, more clips, or better labels come first."
    )
    return text + _too_few(1, groups)


def _not_separated(rows: Sequence[Row], groups: Sequence[str | None]) -> Advice:
    best = rows[0]
    compared = sum(row["p_value"] is not None for row in rows)
    text = "The data do not separate the heads: none is significantly better than `mean`."
    if best["p_value"] is not None:
        text += (
            f" The highest accuracy, that of `{best['name']}`, lies "
            f"{100 * best['difference']:.1f} points above it (Holm-corrected "
            f"p = {best['p_value']:.2g}, uncorrected {best['p_value_uncorrected']:.2g})."
        )
    if not any(row["name"] == REFERENCE for row in rows):  # it failed
        cheapest = min(rows, key=_cost)["name"]
        return Advice(cheapest, f"`mean` failed, so nothing is tested. `{cheapest}` costs least.")
    text += " Take `mean`, which is the simplest; more groups of clips would tell more."
    return Advice(REFERENCE, text + _too_few(compared, groups))


def _too_few(tests: int, groups: Sequence[str | None]) -> str:
    """A sentence for data on which no difference could have been significant."""
    least = smallest_p_value(groups) * max(tests, 1)
    if least < ALPHA:
        return ""
    count, what = _clusters(groups)
    return (
        f" With {count} {what} and {tests} test{'s' * (tests != 1)} no result "
        f"could be significant (the smallest corrected p is {min(least, 1.0):.2g}): add {what}"
        f"{' of clips' * (what == 'groups')}, or compare fewer heads."
    )


def _taken(taken: Row, best: Row, as_good: int, better: int) -> list[str]:
    low, high = taken["accuracy_interval"] or (taken["accuracy"], taken["accuracy"])
    sentences = [
        f"Take `{taken['name']}`: accuracy {taken['accuracy']:.3f} ({low:.3f} to {high:.3f}), "
        f"{100 * taken['difference']:.1f} points above `mean` (Holm-corrected "
        f"p = {taken['p_value']:.2g})."
    ]
    if taken is best:
        sentences.append(
            "It is the most accurate head, and none that is cheaper is both better than `mean` "
            "and not distinguishable from it."
        )
    elif as_good:
        sentences.append(
            f"`{best['name']}` has {best['accuracy']:.3f}, a difference that these data do not "
            f"bear out; of the {as_good} heads not distinguishable from it, "
            f"`{taken['name']}` has the fewest multiply-adds."
        )
    else:
        sentences.append(
            f"`{best['name']}` has {best['accuracy']:.3f}, but is not shown to be better than "
            f"`mean`; of the {better} heads that are, `{taken['name']}` has the fewest "
            "multiply-adds."
        )
    sentences.append(_on_order(taken))
    return sentences


def _on_order(row: Row) -> str:
    """A sentence on whether the order of frames matters to this head on these data."""
    if not row["order_aware"]:
        return "It does not see the order of frames, and does not need to here."
    if row["shuffled"] is None:
        return "Whether the order of frames matters was not measured."
    lost = row["accuracy"] - row["shuffled"]
    if lost > 0 and row["shuffled_p_value"] < ALPHA:
        return (
            f"The order of frames matters here: trained and tested on shuffled frames it has "
            f"{row['shuffled']:.3f}."
        )
    return (
        f"That the order of frames matters is not shown: trained and tested on shuffled frames "
        f"it has {row['shuffled']:.3f}."
    )
