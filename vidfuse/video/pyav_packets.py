"""The packets of a video, by digest: what was copied from one file to another is found by them."""

from __future__ import annotations

import hashlib

import numpy as np

from vidfuse.errors import InputError
from vidfuse.video.packets import PacketList
from vidfuse.video.pyav_stream import VideoFile

DIGEST_BYTES = 8


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
            stamp = file.stamp_of(packet)
            if packet.size and stamp is not None:
                times.append(file.seconds(stamp))
                found = hashlib.blake2b(memoryview(packet), digest_size=DIGEST_BYTES)
                digests.append(found.digest())
    finally:
        file.close()
    if not times:
        raise InputError(path, "its packets do not say when frames are shown")
    return PacketList(np.array(times), np.frombuffer(b"".join(digests), np.uint64))
