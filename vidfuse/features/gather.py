"""Features of a dataset's clips in one table, from which trainings take the rows they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vidfuse.data.clip import Clip
from vidfuse.features.store import Entry, EntryInfo

if TYPE_CHECKING:
    from vidfuse.features.table import FeatureTable, TableBuilder


class Gathered:
    """The clips that have features, and where these are.

    Args:
        builder: Makes the table.

    Attributes:
        table: Features of all clips and, behind them, of the mirrored views of some.
    """

    table: FeatureTable

    def __init__(self, builder: TableBuilder) -> None:
        self._builder = builder
        self._rows: dict[bool, dict[Clip, int]] = {False: {}, True: {}}

    def add(self, entries: Iterable[tuple[Clip, Entry]], *, mirrored: bool = False) -> None:
        """Take over entries as they come."""
        rows = self._rows[mirrored]
        for clip, entry in entries:
            rows[clip] = self._builder.add(entry)

    def close(self) -> None:
        """Make the table; nothing can be added any more.

        Raises:
            UserError: No clip has features.
        """
        self.table = self._builder.table()

    def __contains__(self, clip: object) -> bool:
        return clip in self._rows[False]

    def info(self, clip: Clip) -> EntryInfo:
        """How a clip's features came about."""
        return self._builder.infos[self._rows[False][clip]]

    def twice(self, clips: Sequence[Clip]) -> list[Clip]:
        """Those of some clips that have a mirrored view too."""
        return [clip for clip in clips if clip in self._rows[True]]

    def rows(self, clips: Sequence[Clip], *, mirrored: Sequence[Clip] = ()) -> FeatureTable:
        """The table of some clips, and behind them of the mirrored views of some."""
        rows = [self._rows[False][clip] for clip in clips]
        return self.table.rows(rows + [self._rows[True][clip] for clip in mirrored])
