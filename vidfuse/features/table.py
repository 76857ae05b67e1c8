"""Features of many clips side by side, and the choice of frames among those that are cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.errors import UserError
from vidfuse.features.pile import Pile
from vidfuse.features.store import Entry, EntryInfo
from vidfuse.video.sampling import EPSILON, Sampling, Timeline

OF_CLIPS = ("firsts", "lengths", "chosen", "chosen_lengths", "times", "starts", "ends")
"""The fields of a table that have a row for each clip."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Cached features of N clips.

    Attributes:
        features: ``float16 [F, D, g, g]``, frames of these clips, and maybe of others, one behind
            the other; see `vidfuse.features.pile`.
        firsts: ``int64 [N]``, the place of each clip's first frame among them.
        lengths: ``int64 [N]``, how many frames each clip has there.
        chosen: ``int64 [N, T]``, the frames that a head reads when nothing is drawn at random:
            the same that prediction would decode.
        chosen_lengths: ``int64 [N]``, how many of them are a clip's own.
        times: ``float64 [N, K]`` presentation times; infinite behind a clip's own frames.
        starts: ``float64 [N]``, when each clip's first picture is shown.
        ends: ``float64 [N]``, when each clip's last picture leaves the screen.
        jitter: Whether training draws one cached frame from each of T equal parts.
    """

    features: Tensor
    firsts: Tensor
    lengths: Tensor
    chosen: Tensor
    chosen_lengths: Tensor
    times: Tensor
    starts: Tensor
    ends: Tensor
    jitter: bool

    @classmethod
    def stack(cls, entries: Sequence[Entry], sampling: Sampling, frames: int) -> FeatureTable:
        """Put a few entries side by side, in memory; see `TableBuilder`."""
        builder = TableBuilder(sampling, frames, Pile(len(entries)))
        for entry in entries:
            builder.add(entry)
        return builder.table()

    def rows(self, rows: Sequence[int]) -> FeatureTable:
        """Some clips, in the order given; their features stay where they are."""
        index = torch.tensor(rows, dtype=torch.int64)
        changed = {name: getattr(self, name)[index] for name in OF_CLIPS}
        return replace(self, **changed)

    def whole(
        self, rows: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """All cached features ``float16 [B, K, D, g, g]`` and lengths ``[B]`` of some clips.

        K is the longest clip's length; a shorter clip's last frame is repeated.
        """
        lengths = self.lengths[rows]
        columns = torch.arange(int(self.lengths.max())).minimum(lengths[:, None] - 1)
        return self.features[self.firsts[rows][:, None] + columns], lengths

    def pick(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Features ``float16 [B, T, D, g, g]`` and lengths ``[B]`` of some clips.

        Args:
            rows: ``int64 [B]``, which clips.
            generator: Draws the frames of ``segment`` in training; None takes the fixed ones.
        """
        columns = self.chosen[rows]
        if generator is not None and self.jitter:
            columns = torch.where(
                (self.lengths[rows] > columns.shape[1])[:, None],
                self._draw(rows, columns.shape[1], generator),
                columns,
            )
        return self.features[self.firsts[rows][:, None] + columns], self.chosen_lengths[rows]

    def _draw(self, rows: Tensor, frames: int, generator: torch.Generator) -> Tensor:
        """One random moment in each of T equal parts, and the cached frame on screen then."""
        inside = torch.rand(len(rows), frames, generator=generator, dtype=torch.float64)
        # Of a long clip, the frames at the centres of m parts of each part are cached: a moment
        # before the first of them would show a frame of the part before.
        lengths = self.lengths[rows][:, None]
        cells = lengths // frames
        centres = ((inside * cells).floor() + 0.5) / cells
        inside = torch.where(lengths % frames == 0, centres, inside)
        start = self.starts[rows][:, None]
        span = self.ends[rows][:, None] - start
        moments = start + (torch.arange(frames) + inside) * span / frames
        shown = torch.searchsorted(self.times[rows], moments + EPSILON, right=True) - 1
        return shown.clamp(min=0)


@dataclass(slots=True)
class TableBuilder:
    """Makes a table of entries that come one at a time; none of them is kept.

    Args:
        sampling: The rule that chooses ``frames`` of a clip's cached frames.
        frames: T, how many frames a head reads.
        pile: Where their features go.

    Attributes:
        infos: How the features of each row came about.
    """

    sampling: Sampling
    frames: int
    pile: Pile
    infos: list[EntryInfo] = field(default_factory=list)
    _firsts: list[int] = field(default_factory=list)
    _times: list[NDArray[np.float64]] = field(default_factory=list)
    _picks: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, entry: Entry) -> int:
        """Take over an entry; returns its row.

        Raises:
            UserError: Its features differ in shape from the others' (a native grid follows the
                picture), or there is no room for them.
        """
        self._firsts.append(self.pile.append(entry.features))
        self.infos.append(entry.info)
        self._times.append(entry.times)
        count = len(entry.features)
        # What decoding chose already (every N-th picture, say) is not chosen from again.
        if count <= self.frames:
            picks = np.arange(count)
        else:
            clip = Timeline(entry.times, entry.info.end, start=entry.info.start)
            picks = self.sampling.pick(clip, self.frames)
        self._picks.append(picks)
        return len(self._firsts) - 1

    def table(self) -> FeatureTable:
        """The entries so far, which end here.

        Raises:
            UserError: There are none.
        """
        if not self._firsts:
            raise UserError("no clip has features", "Look at: vidfuse inspect DATASET")
        lengths = np.array([len(times) for times in self._times])
        times = np.full((len(lengths), lengths.max()), np.inf)
        chosen = np.zeros((len(lengths), self.frames), np.int64)
        for row, (own, picks) in enumerate(zip(self._times, self._picks, strict=True)):
            times[row, : len(own)] = own
            chosen[row] = picks[-1]
            chosen[row, : len(picks)] = picks
        return FeatureTable(
            features=torch.from_numpy(self.pile.array()),
            firsts=torch.tensor(self._firsts),
            lengths=torch.from_numpy(lengths),
            chosen=torch.from_numpy(chosen),
            chosen_lengths=torch.tensor([len(picks) for picks in self._picks]),
            times=torch.from_numpy(times),
            starts=torch.tensor([info.start for info in self.infos], dtype=torch.float64),
            ends=torch.tensor([info.end for info in self.infos], dtype=torch.float64),
            jitter=self.sampling.mode == "segment",
        )
