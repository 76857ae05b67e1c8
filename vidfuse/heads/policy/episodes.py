"""Episodes of an agent that observes frames: who decides, and what is kept of the decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

WAVES = 8  # the fastest has half a period in 1/8 of a clip: about the width of 2 in 16 candidates


class ActionSelector(Protocol):
    """Decides what an agent does, given how it rates what it could do."""

    def stop(self, glimpse: int, logits: Tensor) -> Tensor:
        """Select the clips that need no further glimpse, bool [n].

        Args:
            glimpse: Number of glimpses taken, at least 1.
            logits: Of stopping now [n].
        """

    def position(self, rows: Tensor, glimpse: int, log_probs: Tensor) -> Tensor:
        """Select the candidate of each clip that is observed next [n].

        Args:
            rows: Rows of the episode that the clips are [n].
            glimpse: Number of the glimpse, from 0.
            log_probs: Of observing each candidate [n, L]; -inf where there is no frame left.
        """


class Greedy:
    """Takes what the agent rates highest; of equals, the earlier."""

    def stop(self, glimpse: int, logits: Tensor) -> Tensor:
        """True where stopping is more probable than not."""
        return logits > 0

    def position(self, rows: Tensor, glimpse: int, log_probs: Tensor) -> Tensor:
        """The most probable candidates."""
        return log_probs.argmax(1)


class NeverStop(Greedy):
    """Selects as `Greedy` does, until all candidates were observed."""

    def stop(self, glimpse: int, logits: Tensor) -> Tensor:
        """Nowhere."""
        return torch.zeros_like(logits, dtype=torch.bool)


class Sampled(NeverStop):
    """Draws candidates, each with the agent's probability, for as long as there are any.

    Chance comes from torch's global generator, as that of dropout does.
    """

    def position(self, rows: Tensor, glimpse: int, log_probs: Tensor) -> Tensor:
        """The drawn candidates."""
        return log_probs.exp().multinomial(1).squeeze(1)


class FixedOrder(NeverStop):
    """Follows a given order, whatever the agent rates highest.

    Args:
        order: Candidates in the order of the glimpses [R, M], different ones in each row, for the R
            rows of the episode. A clip with fewer candidates uses the first ones of its row.
    """

    def __init__(self, order: Tensor) -> None:
        self.order = order

    def stop(self, glimpse: int, logits: Tensor) -> Tensor:
        """All at the end of the order."""
        return torch.full_like(logits, glimpse >= self.order.shape[1], dtype=torch.bool)

    def position(self, rows: Tensor, glimpse: int, log_probs: Tensor) -> Tensor:
        """The given candidates; at the end of the order, where all stop, any."""
        return self.order[rows, min(glimpse, self.order.shape[1] - 1)]


@dataclass(frozen=True, slots=True)
class Episode:
    """Observations and decisions of an agent: a row for each clip, a column for each of M glimpses.

    Entries of glimpses that were not taken are 0 (and positions -1).

    Attributes:
        positions: Candidates in the order in which they were observed, int64 [R, M].
        counts: Glimpses taken, int64 [R], at least 1.
        logits: Of the classes after each glimpse [R, M, C].
        stops: Logits of stopping after each glimpse [R, M]; that of the last possible glimpse
            decides nothing.
    """

    positions: Tensor
    counts: Tensor
    logits: Tensor
    stops: Tensor

    @property
    def answers(self) -> Tensor:
        """The logits after the last glimpse [R, C]."""
        rows = torch.arange(len(self.counts), device=self.counts.device)
        return self.logits[rows, self.counts - 1]


class EpisodeRecorder:
    """Collects an `Episode` while it goes on, in which ever fewer clips take part.

    Args:
        rows: R, number of clips.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.columns: list[list[Tensor]] = []

    def add(self, rows: Tensor, positions: Tensor, logits: Tensor, stops: Tensor) -> None:
        """Keep what some rows observed [n], their logits [n, C] and those of stopping [n]."""
        empty = self._column(rows, positions, -1)
        self.columns.append([empty, *(self._column(rows, each) for each in (logits, stops))])

    def _column(self, rows: Tensor, values: Tensor, empty: int = 0) -> Tensor:
        whole = values.new_full((self.rows, *values.shape[1:]), empty)
        return whole.index_copy(0, rows, values)

    def episode(self) -> Episode:
        """All of it, side by side."""
        positions, logits, stops = (
            torch.stack(columns, 1) for columns in zip(*self.columns, strict=True)
        )
        return Episode(positions, (positions >= 0).sum(1), logits, stops)


@dataclass(frozen=True, slots=True)
class Replay:
    """Episodes that never stop, computed again with all glimpses at once, as training needs them.

    Column m is glimpse m and the decision that led to it; where ``taken`` is false, nothing.

    Attributes:
        taken: Whether there was such a glimpse, bool [R, M].
        logits: Of the classes after it [R, M, C], with dropout.
        stops: Logits of stopping after it [R, M].
        log_probs: Log-probability of observing that candidate [R, M].
        entropies: Of the distribution that the candidate was drawn from [R, M], in nats.
        values: Expected gain from before it to the end [R, M].
    """

    taken: Tensor
    logits: Tensor
    stops: Tensor
    log_probs: Tensor
    entropies: Tensor
    values: Tensor

    def gains(self, truth: Tensor, frame_cost: float) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what the episodes are worth.

        Args:
            truth: True classes [R].
            frame_cost: Cost of a glimpse, as a share of accuracy.

        Returns:
            The worth of each episode, r_0 [R], through which the decisions to stop learn; what is
            still to be gained before each glimpse, G_n [R, M]; and the probability that it is taken
            [R, M].
        """
        glimpses, classes = self.logits.shape[1:]
        numbers = torch.arange(glimpses, device=truth.device)
        index = truth[:, None, None].expand(-1, glimpses, 1)
        scores = self.logits.detach().softmax(2).gather(2, index).squeeze(2)
        rewards = scores - frame_cost * (numbers + 1).to(scores)
        last = numbers == self.taken.sum(1, keepdim=True) - 1
        leaves = self.stops.to(rewards).sigmoid().masked_fill(last, 1.0)
        worth, later = torch.zeros_like(rewards[:, 0]), []
        for glimpse in reversed(range(glimpses)):
            worth = torch.lerp(worth, rewards[:, glimpse], leaves[:, glimpse])
            later.append(worth.detach())
        before = torch.cat([torch.full_like(rewards[:, :1], 1 / classes), rewards], dim=1)
        stays = (1 - leaves.detach()).cumprod(1)
        reached = torch.cat([torch.ones_like(stays[:, :1]), stays[:, :-1]], dim=1)
        return worth, torch.stack(later[::-1], 1) - before[:, :-1], reached


@dataclass(frozen=True, slots=True)
class Observation:
    """The frames of n clips that were observed so far, t of each.

    Attributes:
        positions: Which candidates they are, in the order of the glimpses [n, t].
        inputs: Their inputs to a recurrence [n, t, hidden].
        votes: Sum of what they add to the logits [n, C].
    """

    positions: Tensor
    inputs: Tensor
    votes: Tensor

    @classmethod
    def nothing(cls, clips: int, hidden: int, classes: int, like: Tensor) -> Observation:
        """Before the first glimpse, with numbers of the type and on the device of a tensor."""
        positions = torch.zeros(clips, 0, dtype=torch.int64, device=like.device)
        inputs, votes = like.new_zeros(clips, 0, hidden), like.new_zeros(clips, classes)
        return cls(positions, inputs, votes)

    def kept(self, rows: Tensor) -> Observation:
        """Some of the clips, bool [n]."""
        return Observation(self.positions[rows], self.inputs[rows], self.votes[rows])

    def and_also(self, positions: Tensor, inputs: Tensor, votes: Tensor) -> Observation:
        """One more frame of each clip: where it is [n], its input [n, hidden], its votes [n, C]."""
        return Observation(
            torch.cat([self.positions, positions[:, None]], dim=1),
            torch.cat([self.inputs, inputs[:, None]], dim=1),
            self.votes + votes,
        )


class NearestSeen:
    """Distance of each candidate to the nearest observed frame, counted in candidates.

    Each end of the clip counts as an observed frame that lies as far outside as the candidate lies
    inside. So always taking the candidate with the largest distance gives the middle of the clip
    first, then the centres of three equal parts, and then what lies between.

    Args:
        lengths: Candidates of each clip [n].
        longest: L, at least the largest of them.
        dtype: Type of the numbers.

    Attributes:
        times: Time of each candidate, from 0 (beginning of the clip) to 1 (its end) [n, L]; of all
            clips that there were.
        distance: The distances [n, L], whole numbers; 0 for observed frames and for padding.
    """

    def __init__(self, lengths: Tensor, longest: int, dtype: torch.dtype) -> None:
        self.numbers = torch.arange(longest, dtype=dtype, device=lengths.device)
        self.times = relative_times(lengths, longest, dtype)
        before, behind = 2 * self.numbers + 1, 2 * (lengths[:, None] - self.numbers) - 1
        self.distance = torch.minimum(before, behind).clamp(min=0.0)

    def add(self, positions: Tensor) -> None:
        """Count one candidate of each clip [n] as observed."""
        self.distance = torch.minimum(self.distance, (self.numbers - positions[:, None]).abs())

    def before(self, positions: Tensor) -> Tensor:
        """The distances [n, M, L] before each of some glimpses [n, M]; -1 is no glimpse."""
        others = (self.numbers - positions[..., None]).abs()
        others = others.masked_fill(positions[..., None] < 0, torch.inf)
        return torch.cat([self.distance[:, None], others[:, :-1]], dim=1).cummin(1).values

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the clips, bool [n]."""
        self.distance = self.distance[rows]


def relative_times(lengths: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """Times of candidates, from 0 (beginning of the clip) to 1 (its end) [n, L].

    Args:
        lengths: Candidates of each clip [n].
        longest: L, at least the largest of them.
        dtype: Type of the numbers.
    """
    numbers = torch.arange(longest, dtype=dtype, device=lengths.device)
    return (numbers + 0.5) / lengths[:, None]


def waves(times: Tensor) -> Tensor:
    """Sines and cosines [..., 2·WAVES] of times [...] within a clip."""
    counts = torch.arange(1, WAVES + 1, dtype=times.dtype, device=times.device)
    angles = math.pi * counts * times[..., None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def spread_order(lengths: Tensor, glimpses: int) -> Tensor:
    """Candidates of each clip in the order that covers it soonest, int64 [B, M].

    M is the smaller of `glimpses` and the longest clip's candidates. Where a clip has fewer, the
    rest of its row means nothing.
    """
    longest = int(lengths.max())
    nearest = NearestSeen(lengths, longest, torch.float64)
    columns = []
    for _ in range(min(glimpses, longest)):
        columns.append(nearest.distance.argmax(1))
        nearest.add(columns[-1])
    return torch.stack(columns, 1)
