"""Cutting a clip from a video: packets as they are, or frames encoded anew.

Packets can be copied from a key frame on. In MP4 and QuickTime an edit list says that what comes
before the part is for decoding only, so a player, and vidfuse, begin with its first frame. Other
containers have no such thing: there the clip begins with the key frame, and the outcome says where
in it the part lies.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidfuse.atomic import ADVICE
from vidfuse.errors import InputError, UserError
from vidfuse.video.cut_job import CONTAINERS, CutJob, CutOutcome
from vidfuse.video.decoder import end_of
from vidfuse.video.pyav_backend import KEEP_BYTES
from vidfuse.video.pyav_encode import Encoder
from vidfuse.video.pyav_index import Index, list_frames, read_index
from vidfuse.video.pyav_stream import SELF_CONTAINED, KeyFrame, SeekError, VideoFile
from vidfuse.video.sampling import EPSILON, on_screen

MP4_SOUND = "aac ac3 alac eac3 flac mp2 mp3 opus"  # that players know in it
HALF = 0.5  # of a frame: what two containers round differently
AVI = "AVI does not say when frames are shown, so this copy may begin or end a few frames off"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
_EXACT = "Encode anew: --exact"


@dataclass(frozen=True, slots=True)
class _Part:
    """Frames of an index, from ``low`` to ``high`` (exclusive), and the key frame before them."""

    low: int
    high: int
    key: KeyFrame
    start: float
    last: float  # when the last frame comes
    end: float


class Source:
    """A video that clips are cut from, kept open from one to the next.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = VideoFile(path)
        self.index = list_frames(self._file)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def cut(self, job: CutJob) -> CutOutcome:
        """Carry out an order.

        Raises:
            InputError: The part holds no frame, or cannot be written in this way.
        """
        self._file.notes.clear()
        self._file.damaged.clear()
        try:
            outcome = self._encode(job) if job.exact else self._copy(job)
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if getattr(error, "errno", None) in DISK:
                raise UserError(f"cannot write {job.target} ({reason})", ADVICE) from error
            how = "encoded" if job.exact else f"copied to a {job.suffix} file"
            hint = None if job.exact else _EXACT
            raise InputError(self.path, f"cannot be {how} ({reason})", hint) from error
        return outcome

    def _part(self, job: CutJob, index: Index) -> _Part:
        """The frames on screen in the part.

        Raises:
            InputError: There are none, or no key frame comes before them.
        """
        cut = index.frame_times.cut(job.start, job.end)
        if not len(cut.times):
            raise self._empty(job, index.frame_times.end)
        low = int(on_screen(index.frame_times.times, cut.times[:1])[0])
        key = max(key for key in index.keys if key.time <= cut.times[0] + EPSILON)
        high = low + len(cut.times)
        following = index.frame_times.times[high:]
        end = float(following[0] if len(following) else index.frame_times.end)
        return _Part(low, high, key, float(cut.times[0]), float(cut.times[-1]), end)

    def _empty(self, job: CutJob, end: float | None) -> InputError:
        hint = f"The video ends at {end:.2f} s: check the segment's times." if end else None
        return InputError(self.path, f"no frame between {job.start:g} s and {job.end:g} s", hint)

    # Copying

    def _copy(self, job: CutJob) -> CutOutcome:
        index = self.index
        if index is None or not index.keys:
            reason = "its packets do not say where it can be cut without decoding"
            raise InputError(self.path, reason, _EXACT)
        part = self._part(job, index)
        early = max(part.start - part.key.time, 0.0)
        if job.dry:
            return CutOutcome(part.start, part.end, early=early)
        listed = suffix_lists_edits(job.suffix)
        warnings = [AVI] if self._file.decode_timed else []
        with av.open(job.target, "w", format=CONTAINERS[job.suffix]) as output:
            stream = output.add_stream_from_template(self._file.stream, opaque=True)
            zero = part.start if listed else part.key.time  # what becomes 0 in the clip
            shift = int(index.stamps[part.low]) if listed else part.key.dts
            video = self._video_packets(index, part, stream, shift)
            sound = Sound(self.path, job, zero, part.end, warnings)
            for _, packet in heapq.merge(video, sound.packets(output), key=lambda each: each[0]):
                output.mux(packet)
        return _measured(job.target, part, early, [*self._file.notes, *warnings])

    def _video_packets(
        self, index: Index, part: _Part, stream: VideoStream, shift: int
    ) -> Iterator[tuple[float, Packet[Any]]]:
        """The packets that the part is decoded from, each with its time from the part's start.

        Args:
            index: Of the video.
            part: Which frames.
            stream: That they are for.
            shift: Ticks of the video that become 0.
        """
        last = int(index.positions[part.low : part.high].max())
        for position, packet in self._packets_from(part.key):
            if position > last:
                return
            if not packet.size:
                continue
            packet.stream = stream
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            if self._file.decode_timed:  # all that AVI states is when frames are decoded
                packet.pts = packet.dts
            yield (packet.dts or 0) * self._file.tick, packet

    def _packets_from(self, key: KeyFrame) -> Iterator[tuple[int, Packet[Any]]]:
        """Packets from a key frame on, each with the number of those before it in the file."""
        position: int | None = None
        try:
            self._file.seek(key)
        except SeekError:
            self._file.restart()
            position = 0
        for packet in self._file.packets():
            stamp = self._file.stamp_of(packet)
            if position is None and stamp == key.pts and packet.is_keyframe:
                position = key.position
            if position is None:
                continue
            if position >= key.position:
                yield position, packet
            position += 1

    # Encoding

    def _encode(self, job: CutJob) -> CutOutcome:
        frames = self._frames(job)
        first = next(frames, None)
        if first is None:
            raise self._empty(job, self.index.frame_times.end if self.index else None)
        start = first[0]
        if job.dry:
            return CutOutcome(start, max(until for _, until, _ in chain([first], frames)))
        warnings: list[str] = []
        end = job.end
        with av.open(job.target, "w", format=CONTAINERS[job.suffix]) as output:
            encoder = Encoder(output, self._file.stream, first[2], job.crf)
            sound = Sound(self.path, job, start, job.end, warnings)
            found = sound.packets(output)
            waiting = next(found, None)
            for time, until, frame in chain([first], frames):
                for packet in encoder.encode(frame, time - start, until - start):
                    output.mux(packet)
                while waiting is not None and waiting[0] <= time - start:
                    output.mux(waiting[1])
                    waiting = next(found, None)
                end = until
            for packet in encoder.finish():
                output.mux(packet)
            while waiting is not None:
                output.mux(waiting[1])
                waiting = next(found, None)
        if self._file.damaged:
            warnings.append(f"damaged packets skipped: {len(self._file.damaged)}")
        _check_count(job.target, self.path, encoder.count)
        return CutOutcome(start, end, warnings=[*self._file.notes, *warnings])

    def _frames(self, job: CutJob) -> Iterator[tuple[float, float, VideoFrame]]:
        """The frames on screen in the part: when each comes and goes, in seconds, and the frame."""
        held: tuple[float, VideoFrame] | None = None
        times: list[float] = []
        for time, frame in self._decoded(job.start):
            if held is not None:
                time = max(time, held[0])
                if time > job.start + EPSILON:
                    yield held[0], time, held[1]
            if time >= job.end - EPSILON:
                return
            held = time, frame
            times.append(time)
        if held is not None:
            ticks = held[1].duration or 0
            until = end_of(np.array(times), ticks * self._file.tick if ticks else None)
            if until > job.start + EPSILON:
                yield held[0], until, held[1]

    def _decoded(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Frames with their times, from one at or before ``start`` on, if there is one.

        As in reading, a short file that does not state each frame's time is decoded from its
        beginning: the times are then the decoder's own.
        """
        index = self.index
        trusted = self._file.indexed or self._file.expected_bytes > KEEP_BYTES
        keys = index.keys if index and trusted and not self._file.decode_timed else []
        before = [key for key in keys if key.time <= start + EPSILON]
        if before:
            try:
                self._file.seek(max(before))
                frames = self._file.frames()
                first = next(frames, None)
                if first is not None and first[0] <= start + EPSILON:
                    yield first
                    yield from frames
                    return
            except SeekError:
                pass
        self._file.restart()
        yield from self._file.frames()


class Sound:
    """The sound of a part: packets of the best sound track.

    Args:
        path: The video.
        job: The order.
        begin: From when on there is sound, in seconds of the video; 0 in the clip.
        end: When it ends.
        warnings: Receives what was left out.
    """

    def __init__(
        self, path: str, job: CutJob, begin: float, end: float, warnings: list[str]
    ) -> None:
        self._path, self._job = path, job
        self._begin, self._end = begin, end
        self._warnings = warnings

    def packets(self, output: OutputContainer) -> Iterator[tuple[float, Packet[Any]]]:
        """The packets, each with its time in the clip; the track is added at once."""
        if not self._job.sound:
            return iter(())
        source: InputContainer = av.open(
            self._path, metadata_errors="ignore", options=SELF_CONTAINED
        )
        stream = source.streams.best("audio")
        if stream is None or stream.codec_context is None:
            source.close()
            return iter(())
        name = stream.codec_context.codec.canonical_name
        if self._job.suffix == ".mp4" and name not in MP4_SOUND.split():
            self._warnings.append(f"sound left out, since MP4 does not hold {name}")
            source.close()
            return iter(())
        try:
            target = output.add_stream_from_template(stream)
        except (av.error.FFmpegError, ValueError):
            self._warnings.append(f"sound left out, since {self._job.suffix} does not hold {name}")
            source.close()
            return iter(())
        return self._read(source, stream, target)

    def _read(
        self, source: InputContainer, stream: Any, target: Any
    ) -> Iterator[tuple[float, Packet[Any]]]:
        origin = (source.start_time or 0) / av.time_base
        tick = float(stream.time_base)
        shift = round((self._begin + origin) / tick)
        try:
            # A second earlier: containers seek by tracks of their own choice.
            moment = max(self._begin + origin - 1, 0)
            source.seek(round(moment * av.time_base))
            for packet in source.demux(stream):
                if packet.pts is None or not packet.size:
                    continue
                time = packet.pts * tick - origin
                if time >= self._end:
                    return
                if time < self._begin - EPSILON:
                    continue
                packet.stream = target
                packet.pts -= shift
                packet.dts = packet.pts if packet.dts is None else packet.dts - shift
                yield time - self._begin, packet
        except (av.error.FFmpegError, OSError) as error:
            self._warnings.append(f"sound ends early ({getattr(error, 'strerror', error)})")
        finally:
            source.close()


def suffix_lists_edits(suffix: str) -> bool:
    """True for containers that can say from where on a clip is shown."""
    return suffix in (".mp4", ".mov")


def _measured(target: str, part: _Part, early: float, warnings: list[str]) -> CutOutcome:
    """The outcome of copying: where the part lies in the clip, as vidfuse reads it.

    Raises:
        InputError: The clip cannot be read, or is not what it should be.
    """
    file = VideoFile(target)
    try:
        index = list_frames(file)
        frame = file.frame_time
    finally:
        file.close()
    if index is None or not index.keys:
        raise InputError(target, "the copied clip has no key frame", _EXACT)
    offset = part.key.time - min(index.keys).time
    start, end = part.start - offset, part.end - offset
    begins = abs(float(index.frame_times.times[0]) - start) < HALF * frame
    late = index.frame_times.end - end
    missing = part.last - offset - float(index.frame_times.times[-1])
    if missing > HALF * frame:
        reason = f"the copied clip ends {missing:.2f} s too early"
        raise InputError(target, reason, _EXACT)
    # The end says little where times are uneven: the last packet says how long another frame stays.
    more = float(index.frame_times.times[-1]) >= end - HALF * min(frame, part.end - part.last)
    ends = late < HALF * frame and not more
    return CutOutcome(
        part.start,
        part.end,
        early,
        0.0 if ends else float(late),
        None if begins else max(start, 0.0),
        None if ends else end,
        warnings,
    )


def _check_count(target: str, source: str, count: int) -> None:
    """See that a clip has as many frames as were written.

    Raises:
        InputError: It has not.
    """
    file = VideoFile(target)
    try:
        index = read_index(file)
    finally:
        file.close()
    found = 0 if index is None else len(index.frame_times.times)
    if found != count:
        raise InputError(source, f"the clip has {found} frames, and {count} were encoded")
