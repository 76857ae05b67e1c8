"""The stretches of a video, found from its packets.

A stretch begins at a key frame, so that hardly a frame is decoded for two of them. It is named by a
digest of the packets that its frames are decoded from, not by that of the file: a video that has
grown still has the stretches that it had, but for the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vidfuse.video.pyav_stream import VideoFile, axes_of
from vidfuse.video.stretch import (
    SECONDS,
    Hole,
    Stretch,
    cut_evenly,
    hole_seconds,
    still_end,
    with_holes,
)

GROUP_SECONDS = 1.0  # key frames that follow sooner begin no group
NEAR = 8  # packets from a hole, among which a damaged one says that frames are lost there


@dataclass(slots=True)
class _Group:
    """Packets from a key frame to the next one.

    Attributes:
        start: When the key frame is shown, in seconds.
        first: When the first of its frames is; those before the key frame need the group before.
        end: When the last of them leaves the screen.
        frames: How many they are.
        hash: Of its packets.
    """

    start: float
    first: float
    end: float
    frames: int = 0
    hash: Any = field(default_factory=hashlib.sha256)


def list_stretches(file: VideoFile) -> list[Stretch]:
    """The stretches of a video, from its packets; nothing but its first frame is decoded.

    Returns:
        Stretches that follow each other; none where packets do not say when frames are shown.
    """
    setup = _setup(file)
    groups: list[_Group] = []
    holes = _HoleFinder(file.frame_time)
    for packet in file.packets():
        if not packet.size:
            continue
        stamp = file.stamp_of(packet)
        if stamp is None:
            return []
        time = file.seconds(stamp)
        end = time + ((packet.duration or 0) * file.tick or file.frame_time)
        if packet.is_keyframe and not (groups and time < groups[-1].start + GROUP_SECONDS):
            groups.append(_Group(time, time, end))
        if groups:  # nothing before the first key frame can be decoded
            group = groups[-1]
            group.first, group.end = min(group.first, time), max(group.end, end)
            group.frames += 1
            holes.add(time, packet.is_corrupt)
            group.hash.update(f"{packet.pts} {packet.dts} {packet.size}\n".encode())
            group.hash.update(memoryview(packet))
    if not groups:
        return []
    end = max(group.end for group in groups)
    found = holes.found + still_end(holes.latest, end, file.frame_time)
    return with_holes(_divide(groups, setup), found, file.frame_time)


class _HoleFinder:
    """Finds the times without frames.

    Args:
        frame_time: Seconds that a frame usually is on screen.

    Attributes:
        found: Those so far.
        latest: When the latest frame gives way to the next one, in seconds.
    """

    def __init__(self, frame_time: float) -> None:
        self.found: list[Hole] = []
        self._frame_time = frame_time
        self._least = hole_seconds(frame_time)
        self.latest = float("inf")
        self._since_damaged = self._since_hole = NEAR  # packets

    def add(self, time: float, corrupt: bool) -> None:
        """Take the next packet in the order of the file, whose frame is shown at ``time``."""
        self._since_damaged = 0 if corrupt else self._since_damaged + 1
        self._since_hole += 1
        if time > self.latest + self._least:
            self.found.append(Hole(self.latest, time, self._since_damaged < NEAR))
            self._since_hole = 0
        elif self._since_hole < NEAR:
            # Frames that are shown before one that is stored before them may come yet.
            hole = self.found[-1]
            end = time if hole.start < time < hole.end else hole.end
            self.found[-1] = Hole(hole.start, end, hole.damaged or corrupt)
        ended = time + self._frame_time
        self.latest = ended if self.latest == float("inf") else max(self.latest, ended)


def _setup(file: VideoFile) -> str:
    """All that is the same for all packets and changes what is decoded from them."""
    _, frame = next(file.frames(), (0.0, None))
    context = file.stream.codec_context
    found = [context.name, bytes(context.extradata or b"").hex(), file.tick, file.origin]
    if frame is not None:
        found += [frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace]
        found += axes_of(frame).ravel().tolist()
    file.restart()
    return repr(found)


def _divide(groups: Sequence[_Group], setup: str) -> list[Stretch]:
    """Join groups to stretches, and cut those that are too long.

    Args:
        groups: In order.
        setup: What all of them are decoded with.
    """
    firsts = [0]
    for number, group in enumerate(groups):
        if group.start >= groups[firsts[-1]].start + SECONDS:
            firsts.append(number)
    stretches: list[Stretch] = []
    for first, stop in pairwise([*firsts, len(groups)]):
        # The frame on screen at the beginning may be of the group before, and frames that are
        # shown before the next key frame be stored behind it.
        more = stop < len(groups) and groups[stop].first < groups[stop].start
        parts = groups[max(first - 1, 0) : stop + more]
        text = setup + "".join(group.hash.hexdigest() for group in parts)
        digest = hashlib.sha256(text.encode()).hexdigest()
        end = groups[stop].start if stop < len(groups) else max(group.end for group in groups)
        frames = sum(group.frames for group in groups[first:stop])
        stretches += cut_evenly(max(groups[first].start, 0.0), end, frames, digest)
    return stretches
