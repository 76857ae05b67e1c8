"""An agent's looks at clips: who decides, and what is kept of the decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Chooser(Protocol):
    """Decides what an agent does, given how it rates what it could do."""

    def stop(self, look: int, logits: Tensor) -> Tensor:
        """Which of n clips need no further look, bool [n].

        Args:
            look: How many looks were taken, at least 1.
            logits: Of stopping now [n].
        """

    def position(self, rows: Tensor, look: int, log_probs: Tensor) -> Tensor:
        """Which candidate of each clip is looked at next [n].

        Args:
            rows: Which rows of the episode the clips are [n].
            look: Number of the look, from 0.
            log_probs: Of looking at each candidate [n, L]; -inf where there is nothing to see.
        """


class Greedy:
    """Takes what the agent rates highest; of equals, the earlier."""

    def stop(self, look: int, logits: Tensor) -> Tensor:
        """Where stopping is more probable than not."""
        return logits > 0

    def position(self, rows: Tensor, look: int, log_probs: Tensor) -> Tensor:
        """The most probable candidates."""
        return log_probs.argmax(1)


class Unstopped(Greedy):
    """Looks where `Greedy` does, for as long as there is anything to see."""

    def stop(self, look: int, logits: Tensor) -> Tensor:
        """Nowhere."""
        return torch.zeros_like(logits, dtype=torch.bool)


class Exploring(Unstopped):
    """Draws candidates, each with the agent's probability, for as long as there are any.

    Chance comes from torch's global generator, as that of dropout does.
    """

    def position(self, rows: Tensor, look: int, log_probs: Tensor) -> Tensor:
        """What was drawn."""
        return log_probs.exp().multinomial(1).squeeze(1)


class Following(Unstopped):
    """Looks where it is told to, whatever the agent thinks.

    Args:
        order: Candidates in the order of the looks [R, M], different ones in each row, for the R
            rows of the episode. A clip with fewer candidates uses the first ones of its row.
    """

    def __init__(self, order: Tensor) -> None:
        self.order = order

    def stop(self, look: int, logits: Tensor) -> Tensor:
        """All at the end of the order."""
        return torch.full_like(logits, look >= self.order.shape[1], dtype=torch.bool)

    def position(self, rows: Tensor, look: int, log_probs: Tensor) -> Tensor:
        """The given candidates; at the end of the order, where all stop, any."""
        return self.order[rows, min(look, self.order.shape[1] - 1)]


@dataclass(frozen=True, slots=True)
class Episode:
    """What an agent saw and thought: a row for each clip, a column for each of M looks.

    Entries of looks that were not taken are 0 (and positions -1).

    Attributes:
        positions: Candidates in the order in which they were looked at, int64 [R, M].
        counts: Looks taken, int64 [R], at least 1.
        logits: Of the classes after each look [R, M, C].
        stops: Logits of stopping after each look [R, M]; what it says of the last look that was
            possible decides nothing.
    """

    positions: Tensor
    counts: Tensor
    logits: Tensor
    stops: Tensor

    @property
    def answers(self) -> Tensor:
        """The logits after the last look [R, C]."""
        rows = torch.arange(len(self.counts), device=self.counts.device)
        return self.logits[rows, self.counts - 1]


class Trace:
    """Collects an `Episode` while it goes on, in which ever fewer clips take part.

    Args:
        rows: R, how many clips are looked at.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.looks: list[list[Tensor]] = []

    def see(self, rows: Tensor, positions: Tensor, logits: Tensor, stops: Tensor) -> None:
        """Keep what some rows looked at [n], their logits [n, C] and those of stopping [n]."""
        empty = self._column(rows, positions, -1)
        self.looks.append([empty, *(self._column(rows, each) for each in (logits, stops))])

    def _column(self, rows: Tensor, values: Tensor, empty: int = 0) -> Tensor:
        whole = values.new_full((self.rows, *values.shape[1:]), empty)
        return whole.index_copy(0, rows, values)

    def episode(self) -> Episode:
        """All of it, side by side."""
        positions, logits, stops = (
            torch.stack(columns, 1) for columns in zip(*self.looks, strict=True)
        )
        return Episode(positions, (positions >= 0).sum(1), logits, stops)


@dataclass(frozen=True, slots=True)
class Review:
    """Episodes without an end once more, all looks at once, as training needs them.

    Column m tells of look m and of the decision that led to it; where ``taken`` is false, nothing.

    Attributes:
        taken: Whether there was such a look, bool [R, M].
        logits: Of the classes after it [R, M, C], with dropout.
        stops: Logits of stopping after it [R, M].
        log_probs: Log-probability of looking there and nowhere else [R, M].
        entropies: Of the distribution that the place was drawn from [R, M], in nats.
        values: What was expected to be gained from before it to the end [R, M].
    """

    taken: Tensor
    logits: Tensor
    stops: Tensor
    log_probs: Tensor
    entropies: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """The frames that n clips have shown so far, t of each.

    Attributes:
        positions: Which candidates they are, in the order of the looks [n, t].
        inputs: What a recurrence reads of them [n, t, hidden].
        votes: Sum of what they add to the logits [n, C].
    """

    positions: Tensor
    inputs: Tensor
    votes: Tensor

    @classmethod
    def nothing(cls, clips: int, hidden: int, classes: int, like: Tensor) -> Seen:
        """Before the first look, with numbers of the type and on the device of a tensor."""
        positions = torch.zeros(clips, 0, dtype=torch.int64, device=like.device)
        inputs, votes = like.new_zeros(clips, 0, hidden), like.new_zeros(clips, classes)
        return cls(positions, inputs, votes)

    def kept(self, rows: Tensor) -> Seen:
        """Some of the clips, bool [n]."""
        return Seen(self.positions[rows], self.inputs[rows], self.votes[rows])

    def and_also(self, positions: Tensor, inputs: Tensor, votes: Tensor) -> Seen:
        """One more frame of each clip: where it is [n], its input [n, hidden], its votes [n, C]."""
        return Seen(
            torch.cat([self.positions, positions[:, None]], dim=1),
            torch.cat([self.inputs, inputs[:, None]], dim=1),
            self.votes + votes,
        )


class Room:
    """How far each candidate is from what was looked at, counted in candidates.

    The nearest picture seen counts, and each end of the clip counts as one that lies as far outside
    as the candidate lies inside. So to look always where there is most room gives the middle of the
    clip first, then the centres of three equal parts, and then what lies between.

    Args:
        lengths: Candidates of each clip [n].
        longest: L, at least the largest of them.
        dtype: Type of the numbers.

    Attributes:
        places: Where each candidate is, from 0 (beginning of the clip) to 1 (its end) [n, L]; of
            all clips that there were.
        left: The distances [n, L], whole numbers; 0 for what was looked at and for padding.
    """

    def __init__(self, lengths: Tensor, longest: int, dtype: torch.dtype) -> None:
        self.numbers = torch.arange(longest, dtype=dtype, device=lengths.device)
        self.places = middles(lengths, longest, dtype)
        before, behind = 2 * self.numbers + 1, 2 * (lengths[:, None] - self.numbers) - 1
        self.left = torch.minimum(before, behind).clamp(min=0.0)

    def look(self, positions: Tensor) -> None:
        """Take the room that one candidate of each clip [n] takes."""
        self.left = torch.minimum(self.left, (self.numbers - positions[:, None]).abs())

    def before(self, positions: Tensor) -> Tensor:
        """What was left before each of some looks [n, M]: [n, M, L]; looks at -1 take nothing."""
        taken = (self.numbers - positions[..., None]).abs()
        taken = taken.masked_fill(positions[..., None] < 0, torch.inf)
        return torch.cat([self.left[:, None], taken[:, :-1]], dim=1).cummin(1).values

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the clips, bool [n]."""
        self.left = self.left[rows]


def middles(lengths: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """Where candidates are, from 0 (beginning of the clip) to 1 (its end) [n, L].

    Args:
        lengths: Candidates of each clip [n].
        longest: L, at least the largest of them.
        dtype: Type of the numbers.
    """
    numbers = torch.arange(longest, dtype=dtype, device=lengths.device)
    return (numbers + 0.5) / lengths[:, None]


def spread_order(lengths: Tensor, looks: int) -> Tensor:
    """Candidates of each clip in the order in which they leave least room, int64 [B, M].

    M is the smaller of `looks` and the longest clip's candidates. Where a clip has fewer, the rest
    of its row means nothing.
    """
    longest = int(lengths.max())
    room = Room(lengths, longest, torch.float64)
    columns = []
    for _ in range(min(looks, longest)):
        columns.append(room.left.argmax(1))
        room.look(columns[-1])
    return torch.stack(columns, 1)
