"""Clips that stay open, for those who see a frame before they know which one they want next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vidfuse.errors import InputError
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool, Slot


class OpenClips(DecodePool):
    """A few places, at each of which a decode process keeps a clip open and waits for orders.

    A place has the cost of a process, and a clip of up to `pyav_backend.KEEP_BYTES` of decoded
    frames is decoded once, however often it is asked for more. As many clips are open at once as
    the pool has workers. The time limit is that of one order.
    """

    keep: ClassVar[bool] = True

    def __init__(
        self,
        decoder: str = "auto",
        workers: int | None = None,
        time_limit: float | None = None,
        memory: int | None = None,
    ) -> None:
        super().__init__(decoder, workers, time_limit, memory=memory)
        self._slots = [Slot(self, self.keep) for _ in range(self.workers)]

    def read_at(self, requests: Mapping[int, FrameRequest]) -> dict[int, Frames | InputError]:
        """Carry out orders side by side.

        Args:
            requests: Place, from 0 to `workers` - 1 → what to read. The clip stays open there until
                another one is asked for at this place.
        """
        waiting = {
            place: self._threads.submit(self._slots[place].read, request)
            for place, request in requests.items()
        }
        answers: dict[int, Frames | InputError] = {}
        try:
            for place, future in waiting.items():
                try:
                    answers[place] = future.result()
                except InputError as error:
                    answers[place] = error
        except BaseException:  # what is still being read must not be taken for what is asked next
            for slot in self._slots:
                slot.abandon()
            self._slots = [Slot(self, self.keep) for _ in range(self.workers)]
            raise
        return answers

    def release(self) -> None:
        """Close all clips; the processes stay."""
        for slot in self._slots:
            slot.release()
