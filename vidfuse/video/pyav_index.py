"""The list of frames in a container, and the way to some of them that decodes the least."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from vidfuse.video.decoder import end_of
from vidfuse.video.pyav_stream import KeyFrame, VideoFile
from vidfuse.video.sampling import EPSILON, FrameTimes, Indices, on_screen

# So many frames could be decoded in the time that a seek takes, with those that the decoder holds
# back until it knows their order.
FRAMES_A_SEEK = 8
# From so many frames behind a key frame of AVI on, decoding from it gives what decoding all gives,
# where frames are held back: 16 at most, and 16 shown before the key frame are stored behind it.
MOST_LEAD = 32


@dataclass(frozen=True, slots=True)
class Index:
    """The frames of a file in the order of presentation, as the container lists them.

    Attributes:
        frame_times: Their presentation times.
        stamps: ``[N]``, the same in the stream's ticks.
        positions: ``[N]``, the number of packets before each one's own in the file.
        keys: Key frames that decoding can begin at, in the order of presentation; none where that
            is unknown.
        doubtful: True where something speaks against decoding by it: a packet is there in part
            only, or does not state when its frame is shown; frames come before the first key
            frame, or are shown in turns with those of another group; or the decoder is set up anew
            on the way, which it misses when packets are read without it.
    """

    frame_times: FrameTimes
    stamps: NDArray[np.int64]
    positions: Indices
    keys: list[KeyFrame]
    doubtful: bool

    def parts(self, wanted: Indices) -> list[tuple[KeyFrame, Indices]]:
        """Divide frames into parts, each decoded from a key frame to its last frame.

        A part goes on beyond the next key frame where decoding what lies between costs less than
        seeking.

        Args:
            wanted: Indices of frames, increasing.
        """
        key_of = on_screen(
            np.array([key.time for key in self.keys]), self.frame_times.times[wanted]
        )
        parts: list[tuple[KeyFrame, list[int]]] = []
        reached = -np.inf
        for frame, number in zip(wanted.tolist(), key_of.tolist(), strict=True):
            key = self.keys[number]
            if key.position > reached + FRAMES_A_SEEK:
                parts.append((key, []))
            parts[-1][1].append(frame)
            reached = max(reached, self.positions[frame])
        return [(key, np.array(frames)) for key, frames in parts]


def read_index(file: VideoFile) -> Index | None:
    """Read the container's list of frames, without decoding.

    Returns:
        None where it does not state presentation times.
    """
    if file.decode_timed:
        return None
    listed = array("q")  # a list of tuples takes ten times as much, for hours of frames
    keys: list[KeyFrame] = []
    doubtful = mixed = False
    length = _bytes_of_lengths(file.stream.codec_context) if file.indexed else 0
    for position, packet in enumerate(file.packets()):
        if not packet.size:
            continue
        mixed |= _sets_up_anew(packet)
        doubtful |= packet.is_corrupt or packet.pts is None
        if packet.pts is None:
            continue
        if packet.is_keyframe and (not length or _is_random_access(packet, length)):
            dts = packet.pts if packet.dts is None else packet.dts
            keys.append(KeyFrame(file.seconds(packet.pts), packet.pts, dts, position))
        if not packet.is_discard:  # else it is needed to decode the others, never shown
            listed.extend((packet.pts, position, packet.duration or 0))
    keys.sort()
    found = np.array(listed, np.int64).reshape(-1, 3)
    frames = len(found)
    if keys:  # nothing before the first key frame can be decoded
        found = found[found[:, 0] >= keys[0].pts]
    if not len(found):
        return None
    mixed |= _mixed(found, np.array([key.position for key in keys]))
    doubtful |= mixed or len(found) < frames
    stamps, positions, durations = found[np.lexsort((found[:, 1], found[:, 0]))].T.copy()
    times = stamps * file.tick - file.origin
    frame_times = FrameTimes(times, end_of(times, durations[-1] * file.tick))
    # In a file of several recordings the container finds only what is in the first.
    return Index(frame_times, stamps, positions, [] if file.joined or mixed else keys, doubtful)


def list_frames(file: VideoFile) -> Index | None:
    """The frames of a file as its packets list them; of AVI by the time at which they are decoded.

    Returns:
        None where packets do not say when frames are shown.
    """
    if not file.decode_timed:
        return read_index(file)
    listed = array("q")
    keys: list[KeyFrame] = []
    for position, packet in enumerate(file.packets()):
        if not packet.size or packet.dts is None:
            continue
        if packet.is_keyframe:
            keys.append(
                KeyFrame(file.seconds(packet.dts), packet.dts, packet.dts, position, packet.pos)
            )
        if keys:
            listed.extend((packet.dts, position))
    if not listed:
        return None
    stamps, positions = np.array(listed, np.int64).reshape(-1, 2).T.copy()
    times = np.asarray(stamps * file.tick - file.origin, np.float64)
    frame_times = FrameTimes(times, end_of(times, None))
    return Index(frame_times, stamps, positions, [] if file.joined else keys, doubtful=True)


def list_avi_frames(file: VideoFile) -> Index | None:
    """The frames of an AVI file by the time at which the decoder gives them.

    That is the time of a later packet where it holds frames back until it knows their order.

    Returns:
        None where nothing can be decoded, or it has no key frame to seek to.
    """
    time, frame = next(file.frames(), (0.0, None))
    file.restart()
    found = list_frames(file)
    if found is None or frame is None or not found.keys:
        return None
    stated, end = found.frame_times.times, found.frame_times.end
    held = int(np.searchsorted(stated, time - EPSILON))
    last = [stated[-1] + file.frame_time * number for number in range(1, held + 1)]
    times = np.append(stated, last)[held:].astype(np.float64)
    complete = np.minimum(np.arange(len(times)) + held, len(stated) - 1)
    keys = [found.keys[0]]
    for key in found.keys[1:]:
        number = int(np.searchsorted(found.positions, key.position)) + (MOST_LEAD if held else 0)
        if number < len(times):  # behind the last, only what it held back would come
            keys.append(key._replace(time=float(times[number])))
    return replace(
        found,
        frame_times=FrameTimes(times, end + held * file.frame_time),
        positions=found.positions[complete],
        keys=keys,
    )


def _bytes_of_lengths(context: VideoCodecContext) -> int:
    """Bytes of the length before each unit of an HEVC packet; 0 for other codecs and layouts.

    The last two bits of byte 21 of the configuration record say it (ISO/IEC 14496-15, 8.3.3.1).
    """
    record = context.extradata or b""
    known = context.codec.canonical_name == "hevc" and len(record) > 21 and record[0] == 1
    return (record[21] & 3) + 1 if known else 0


def _is_random_access(packet: Packet[Any], length: int) -> bool:
    """True for an HEVC key frame that is one: containers call frames so that are none. (H.264's
    decoder notices that by itself.)

    Bits 1 to 6 of a unit's first byte are its type: those below 32 are slices of a frame, those
    from 16 to 21 of one that decoding can begin at (ITU-T H.265, table 7-1).

    Args:
        packet: A row of units, each behind its length.
        length: Bytes of each length.
    """
    data, at = memoryview(packet), 0
    while at + length < len(data):
        size = int.from_bytes(data[at : at + length], "big")
        kind = data[at + length] >> 1 & 63
        if kind < 32:
            return size > 0 and 16 <= kind <= 21
        at += length + size
    return False


def _sets_up_anew(packet: Packet[Any]) -> bool:
    """True where a packet brings new settings for the decoder, as far as this PyAV tells."""
    has = getattr(packet, "has_sidedata", None)
    return bool(has and has("new_extradata"))


def _mixed(found: NDArray[np.int64], keys: Indices) -> bool:
    """True where frames of before a key frame and of after it are shown in turns, or two at a time,
    as where recordings were joined: there is no telling then what the decoder makes of it.

    Args:
        found: ``[N, 3]`` in the order of the file: presentation time, position and duration of
            each frame.
        keys: Positions of key frames.
    """
    stamps, positions = found[:, 0], found[:, 1]
    latest_before = np.maximum.accumulate(stamps)
    earliest_after = np.minimum.accumulate(stamps[::-1])[::-1]
    at = np.searchsorted(positions, keys)
    at = at[(at > 0) & (at < len(stamps))]
    turns = (latest_before[at - 1] >= earliest_after[at]).any()
    return bool(turns) or len(np.unique(stamps)) < len(stamps)
