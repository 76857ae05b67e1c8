"""The video stream of a file through PyAV: opening it, its packets, its decoded frames."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Set
from contextlib import suppress
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vidfuse.data.files import read_head
from vidfuse.errors import InputError
from vidfuse.video.decoder import check_size
from vidfuse.video.frames import Pixels

# Share of the declared frames below which a file counts as cut off: edit lists and packed
# frames leave some out.
MOST = 0.75
# Newer versions of PyAV convert with all cores, which others have work for.
ONE_THREAD = {"threads": 1} if "threads" in str(VideoReformatter.reformat.__doc__) else {}
MAX_DAMAGED = 1000  # packets that do not decode, after which decoding stops
# Decode times only grow within a recording. A step back by more than this (seconds, as the ffmpeg
# program has it) starts another recording in the same file.
STEP_BACK = 0.1
# Of these, each packet holds one frame and says when it is shown, unless they are interlaced; in
# others there are packed frames, single fields, and frames that are never shown.
ONE_FRAME_A_PACKET = ("av1", "h264", "hevc", "vp9")
TRUE_INDEX = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
# Containers that hold all of themselves. FFmpeg knows others too, which are lists of files or
# addresses (HLS, DASH, concat), read neighbouring files, or run scripts.
CONTAINERS = """
    aac amv apng asf av1 avi cavsvideo dhav dirac dv flac flic flv gif gxf h261 h263 h264 hevc ivf
    m4v matroska,webm mjpeg mjpeg_2000 mov,mp4,m4a,3gp,3g2,mj2 mp3 mpeg mpegts mpegvideo mxf nsv nut
    obu ogg rm roq smk swf vc1 vivo vvc wav wtv yuv4mpegpipe
"""
SELF_CONTAINED = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(CONTAINERS.split()),
}
# Removes slices that no other frame is decoded from, and what may stand beside them without meaning
# for others: supplemental information, delimiters, filler (ITU-T H.264, table 7-1).
REFERENCES_ONLY = "filter_units=discard=nonref:discard_flags=keep_non_vcl:remove_types=6|9|12"
WHOLE_FRAMES = (0, 1)  # FFmpeg's AVFieldOrder: unknown, progressive


class KeyFrame(NamedTuple):
    """A frame where decoding can begin.

    Attributes:
        time: In seconds from the start of the file.
        pts: In the stream's ticks.
        dts: When it is decoded, likewise.
        position: The number of packets before its own.
        byte: Where its packet begins in the file, of which a seek must lead there and nowhere else;
            None where its time tells.
    """

    time: float
    pts: int
    dts: int
    position: int
    byte: int | None = None


class VideoFile:
    """The video stream of one open file.

    Attributes:
        container: The open file.
        stream: Its best video stream.
        decode_timed: True where frames are shown at the times at which they are decoded.
        indexed: True where packets state the presentation time of each frame, as the decoder does.
        joined: True where the packets so far come from several recordings, one after the other.
        decoded: Number of frames that were decoded so far.
        notes: Problems that were not fatal.
        damaged: Positions of packets that do not decode.
        hidden: Positions of packets so far that an edit list leaves out.

    Raises:
        InputError: The file is missing, empty, or holds no video stream.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.decoded = 0
        self.notes: list[str] = []
        self.damaged: set[int | None] = set()
        self.hidden: set[int | None] = set()
        # One for all frames: to set one up takes longer than to convert a small frame.
        self._reformatter = VideoReformatter()
        self.open()

    def restart(self) -> None:
        """Go back to the beginning, also in a file that cannot be sought in."""
        self.close()
        self.open()

    def open(self) -> None:
        """Open the file, once more after ``close``."""
        try:
            self.container = self.connect()
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = ffmpeg_reason(error)
            if getattr(error, "errno", None) == errno.EINVAL:  # what the white list answers
                text = b"\0" not in read_head(self.path, 256)
                reason = f"{'a playlist' if text else 'damaged'}, or in a format that is not read"
            raise InputError(self.path, f"not a video that can be opened ({reason})") from error
        self.stream = self._video_stream()
        self.stream.thread_type = "SLICE"  # one clip, one core: clips run side by side
        self.stream.codec_context.thread_count = 1
        # AVI stores no presentation times and what is derived from its packets is wrong for packed
        # B-frames: frames come out in the order and at the times at which they are decoded.
        self.decode_timed = self.container.format.name == "avi"
        context = self.stream.codec_context
        self.indexed = (
            self.container.format.name in TRUE_INDEX
            and context.codec.canonical_name in ONE_FRAME_A_PACKET
            and getattr(context, "field_order", None) in WHOLE_FRAMES  # older PyAV cannot say
        )
        self._filter: BitStreamFilterContext | None = None
        if self.indexed and context.codec.canonical_name == "h264":
            with suppress(av.error.FFmpegError, ValueError):
                self._filter = BitStreamFilterContext(REFERENCES_ONLY, self.stream)
        self.joined = False
        self.origin = (self.container.start_time or 0) / av.time_base
        self.tick = float(self.stream.time_base or 1)
        self.frame_time = 1 / float(self.stream.average_rate or self.stream.guessed_rate or 25)

    def connect(self) -> InputContainer:
        """The container as FFmpeg opens it."""
        return av.open(self.path, metadata_errors="ignore", options=SELF_CONTAINED)

    def _video_stream(self) -> VideoStream:
        stream = self.container.streams.best("video")
        if not isinstance(stream, VideoStream):
            kinds = sorted({stream.type for stream in self.container.streams})
            raise InputError(self.path, f"no video in it (only {', '.join(kinds) or 'no streams'})")
        if stream.disposition & av.stream.Disposition.attached_pic:
            raise InputError(self.path, "no video in it (only sound with a cover frame)")
        if stream.codec_context is None:
            raise InputError(self.path, "its video codec is not known to the installed PyAV")
        return stream

    @property
    def expected_bytes(self) -> float:
        """Approximate bytes of memory that all decoded frames (4:2:0) take."""
        context = self.stream.codec_context
        seconds = (self.container.duration or 0) / av.time_base
        count = max(self.stream.frames, seconds / self.frame_time)
        return count * context.width * context.height * 1.5

    def cut_off(self, count: int, end: float) -> str | None:
        """A warning where the file is far shorter than it says of itself, else None.

        Args:
            count: Number of frames that were found.
            end: Time at which the last of them leaves the screen, in seconds.
        """
        if self.decode_timed:  # what AVI declares are moments, with a frame or without
            seconds = self.stream.frames * self.tick
            return _too_short(end, seconds) if end < MOST * seconds else None
        declared = self.stream.frames
        if count + len(self.hidden) < MOST * declared:
            return f"{count} of the {declared} frames that it declares: it looks cut off"
        # Of several streams, another may be the longest.
        seconds = (self.container.duration or 0) / av.time_base
        if len(self.container.streams) == 1 and end < MOST * seconds:
            return _too_short(end, seconds)
        return None

    def seek(self, key: KeyFrame) -> None:
        """Go to a key frame, or to an earlier one where the container leads nowhere nearer.

        Raises:
            SeekError: It lands behind the key frame, or by another count of packets.
        """
        found: int | None = None
        for target in (key.pts, key.dts):  # what is looked for depends on the container
            self.container.seek(target, stream=self.stream)
            packet = next(self.packets(), None)
            exact = packet is not None and self.stamp_of(packet) == key.pts
            if exact or (found is None and self._not_behind(packet, key)):
                found = target
            if exact:
                break
        if found is None:
            raise SeekError
        self.container.seek(found, stream=self.stream)
        if key.byte is not None:
            if not self._leads_to(key):
                raise SeekError
            self.container.seek(found, stream=self.stream)

    def _leads_to(self, key: KeyFrame) -> bool:
        """True where reading on from here gives the packet of a key frame at its time."""
        for packet in self.packets():
            stamp = self.stamp_of(packet)
            if stamp is not None and stamp >= key.pts:
                return stamp == key.pts and packet.pos == key.byte
        return False

    def _not_behind(self, packet: Packet[Any] | None, key: KeyFrame) -> bool:
        if packet is None or self.stamp_of(packet) is None:
            return False
        if packet.dts is None:
            return packet.is_keyframe and packet.pts is not None and packet.pts <= key.pts
        return packet.dts <= key.dts

    def stamp_of(self, packet: Packet[Any]) -> int | None:
        """The time that a packet states for its frame, in the stream's ticks."""
        return packet.dts if self.decode_timed else packet.pts

    def seconds(self, stamp: int) -> float:
        """A time stamp of the stream as seconds from the start of the file."""
        return stamp * self.tick - self.origin

    def packets(self) -> Iterator[Packet[Any]]:
        """Packets from here on, with time stamps that go on where recordings are joined.

        A torn file ends where it is torn.
        """
        latest, shift = -np.inf, 0
        try:
            for packet in self.container.demux(self.stream):
                dts = packet.dts
                if packet.is_discard:
                    self.hidden.add(packet.pos)
                if dts is not None:
                    if (dts + shift - latest) * self.tick < -STEP_BACK:
                        shift = round(latest + self.frame_time / self.tick) - dts
                        self.joined = True
                    latest = max(latest, dts + shift)
                if shift:
                    packet.dts = None if dts is None else dts + shift
                    packet.pts = None if packet.pts is None else packet.pts + shift
                yield packet
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError) as error:
            self.notes.append(f"reading stopped early ({ffmpeg_reason(error)})")

    def frames(self, wanted: Set[int] | None = None) -> Iterator[tuple[float, VideoFrame]]:
        """The frames from here on that can be decoded, each with its presentation time.

        Args:
            wanted: Presentation times, in the stream's ticks. Frames of other times that no other
                frame is decoded from are left out, where that is known; None is all frames.
        """
        previous: float | None = None
        for packet in self.packets():
            if wanted is not None and packet.pts not in wanted and self._is_spare(packet):
                continue
            try:
                frames = packet.decode()
            except MemoryError:  # FFmpeg's, too: it says nothing of the packet
                raise
            except av.error.FFmpegError:
                self.damaged.add(packet.pos)
                if len(self.damaged) > MAX_DAMAGED:
                    break
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                check_size(self.path, frame.width, frame.height)
                self.decoded += 1
                previous = self.time_of(frame, previous)
                yield previous, frame

    def _is_spare(self, packet: Packet[Any]) -> bool:
        """True for a frame that no other is decoded from, of which FFmpeg's filter leaves nothing.

        (Its H.264 decoder can leave them out by itself, and then does not report damage. In HEVC
        a frame that its temporal layer does not need may be needed by a higher one.)
        """
        data = bytes(packet)
        # No sound packet ends with a zero byte, but a hole in a file is made of them, and of that
        # the filter leaves nothing either.
        if self._filter is None or not data or not data[-1]:
            return False
        try:
            return not self._filter.filter(Packet(data))
        except MemoryError:
            raise
        except av.error.FFmpegError:  # damaged, which the decoder is to notice
            return False

    def time_of(self, frame: VideoFrame, previous: float | None) -> float:
        """When a frame is shown, in seconds; without a stamp, behind the one before."""
        stamp = frame.dts if self.decode_timed or frame.pts is None else frame.pts
        if stamp is not None:
            return self.seconds(stamp)
        return 0.0 if previous is None else previous + self.frame_time

    def to_rgb(self, frame: VideoFrame) -> Pixels:
        """``[H, W, 3]`` RGB, turned by right angles and mirrored as the display matrix says."""
        converted = self._reformatter.reformat(frame, format="rgb24", **ONE_THREAD)
        image = cast(Pixels, converted.to_ndarray())
        (a, b), (c, d) = axes_of(frame)
        across, down = (a, d) if abs(a) >= abs(b) else (c, b)
        if abs(b) > abs(a):
            image = image.transpose(1, 0, 2)
        if across < 0:
            image = image[:, ::-1]
        if down < 0:
            image = image[::-1]
        return np.ascontiguousarray(image)

    def close(self) -> None:
        """Release the file."""
        self.container.close()


def _too_short(end: float, seconds: float) -> str:
    return f"{end:.1f} of the {seconds:.1f} s that it declares: it looks cut off"


class SeekError(Exception):
    """A seek did not land where the index says that it would."""


def ffmpeg_reason(error: Exception) -> str:
    """FFmpeg's reason in a few words, without the name of the file."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0][:120]


def is_turned(frame: VideoFrame) -> bool:
    """True for a frame that is shown otherwise than it is stored."""
    (a, b), (c, d) = axes_of(frame)
    return bool(b or c or a < 0 or d < 0)


def is_mirrored(frame: VideoFrame) -> bool:
    """True for a frame that is shown as in a mirror, turned or not."""
    (a, b), (c, d) = np.sign(axes_of(frame))
    return bool(a * d - b * c < 0)


def axes_of(frame: VideoFrame) -> NDArray[np.int32]:
    """``[[a, b], [c, d]]`` of the display matrix: x' = a x + c y, y' = b x + d y.

    See ISO/IEC 14496-12, 8.2.2.
    """
    matrix = cast(Any, frame.side_data).get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return np.eye(2, dtype=np.int32)
    return np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2]


def bytes_of(frame: VideoFrame) -> int:
    """Bytes of memory that a decoded frame takes."""
    return sum(plane.buffer_size for plane in frame.planes)
