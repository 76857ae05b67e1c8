"""The packets of a video, by digest, for processes that do not decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidfuse.video.sampling import Times


@dataclass(frozen=True, slots=True)
class PacketList:
    """The packets of a video stream, in the order of the file.

    Attributes:
        times: ``[N]`` when their frames are shown, of AVI when they are decoded, in seconds from
            the start of the file; below 0 for what an edit list leaves out.
        digests: ``uint64 [N]``, of their bytes.
    """

    times: Times
    digests: NDArray[np.uint64]

    @classmethod
    def from_bytes(cls, count: int, data: bytes) -> PacketList:
        """The list of so many packets whose two arrays lie one behind the other."""
        half = 8 * count
        return cls(np.frombuffer(data[:half]), np.frombuffer(data[half:], np.uint64))
