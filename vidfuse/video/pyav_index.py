"""What a container says of its pictures, and the way to some of them that decodes the least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from vidfuse.video.decoder import end_of
from vidfuse.video.pyav_stream import KeyFrame, VideoFile
from vidfuse.video.sampling import Indices, Timeline, on_screen

# So many pictures could be decoded in the time that a seek takes, with those that the decoder holds
# back until it knows their order.
PICTURES_A_SEEK = 8


@dataclass(frozen=True, slots=True)
class Index:
    """The pictures of a file in the order of presentation, as the container lists them.

    Attributes:
        timeline: Their presentation times.
        stamps: ``[N]``, the same in the stream's ticks.
        positions: ``[N]``, how many packets come before each one's own in the file.
        keys: Where decoding can begin, in the order of presentation; none where that is unknown.
        doubtful: Whether something in it speaks against decoding by it: a packet is there in part
            only, or does not say when its picture is shown; pictures come before the first key
            frame, or are shown in turns with those of another group; or the decoder is set up anew
            on the way, which it misses when packets are read without it.
    """

    timeline: Timeline
    stamps: NDArray[np.int64]
    positions: Indices
    keys: list[KeyFrame]
    doubtful: bool

    def parts(self, wanted: Indices) -> list[tuple[KeyFrame, Indices]]:
        """Divide pictures into parts, each decoded from a key frame to its last picture.

        A part goes on beyond the next key frame where decoding what lies between costs less than
        seeking.

        Args:
            wanted: Indices of pictures, increasing.
        """
        key_of = on_screen(np.array([key.time for key in self.keys]), self.timeline.times[wanted])
        parts: list[tuple[KeyFrame, list[int]]] = []
        reached = -np.inf
        for picture, number in zip(wanted.tolist(), key_of.tolist(), strict=True):
            key = self.keys[number]
            if key.position > reached + PICTURES_A_SEEK:
                parts.append((key, []))
            parts[-1][1].append(picture)
            reached = max(reached, self.positions[picture])
        return [(key, np.array(pictures)) for key, pictures in parts]


def read_index(file: VideoFile) -> Index | None:
    """Read what the container lists, without decoding.

    Returns:
        None where it does not say when pictures are shown.
    """
    if file.decode_timed:
        return None
    found: list[tuple[int, int, int]] = []
    keys: list[KeyFrame] = []
    doubtful = mixed = False
    for position, packet in enumerate(file.packets()):
        if not packet.size:
            continue
        mixed |= _sets_up_anew(packet)
        doubtful |= packet.is_corrupt or packet.pts is None
        if packet.pts is None:
            continue
        if packet.is_keyframe and file.units.begins(packet):
            dts = packet.pts if packet.dts is None else packet.dts
            keys.append(KeyFrame(file.seconds(packet.pts), packet.pts, dts, position))
        if not packet.is_discard:  # else it is needed to decode the others, never shown
            found.append((packet.pts, position, packet.duration or 0))
    keys.sort()
    listed = len(found)
    if keys:  # nothing before the first key frame can be decoded
        found = [picture for picture in found if picture[0] >= keys[0].pts]
    if not found:
        return None
    mixed |= _mixed(np.array(found), np.array([key.position for key in keys]))
    doubtful |= mixed or len(found) < listed
    found.sort()
    stamps, positions, durations = np.array(found).T
    times = stamps * file.tick - file.origin
    timeline = Timeline(times, end_of(times, durations[-1] * file.tick))
    # In a file of several recordings the container finds only what is in the first.
    return Index(timeline, stamps, positions, [] if file.joined or mixed else keys, doubtful)


def _sets_up_anew(packet: Packet) -> bool:
    """Whether the decoder gets new settings with a packet, as far as this version of PyAV says."""
    has = getattr(packet, "has_sidedata", None)
    return bool(has and has("new_extradata"))


def _mixed(found: NDArray[np.int64], keys: Indices) -> bool:
    """Whether pictures of before a key frame and of after it are shown in turns, or two at a time,
    as where recordings were joined: there is no telling then what the decoder makes of it.

    Args:
        found: ``[N, 3]`` in the order of the file: when a picture is shown, its position, its
            duration.
        keys: Positions of key frames.
    """
    stamps, positions = found[:, 0], found[:, 1]
    latest_before = np.maximum.accumulate(stamps)
    earliest_after = np.minimum.accumulate(stamps[::-1])[::-1]
    at = np.searchsorted(positions, keys)
    at = at[(at > 0) & (at < len(stamps))]
    turns = (latest_before[at - 1] >= earliest_after[at]).any()
    return bool(turns) or len(np.unique(stamps)) < len(stamps)
