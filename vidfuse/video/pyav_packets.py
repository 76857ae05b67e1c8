"""The packets of a video, by digest: what was copied from one file to another is found by them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidfuse.errors import InputError
from vidfuse.video.pyav_stream import VideoFile
from vidfuse.video.sampling import Times

DIGEST_BYTES = 8


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


def list_packets(path: str) -> PacketList:
    """The packets of a video; nothing is decoded.

    Raises:
        InputError: It cannot be read, or its packets have no times.
    """
    file = VideoFile(path)
    times: list[float] = []
    digests: list[bytes] = []
    try:
        for packet in file.packets():
            stamp = packet.dts if file.decode_timed else packet.pts
            if packet.size and stamp is not None:
                times.append(file.seconds(stamp))
                found = hashlib.blake2b(memoryview(packet), digest_size=DIGEST_BYTES)
                digests.append(found.digest())
    finally:
        file.close()
    if not times:
        raise InputError(path, "its packets do not say when frames are shown")
    return PacketList(np.array(times), np.frombuffer(b"".join(digests), np.uint64))
