"""What packets of H.264 and HEVC say of themselves, without being decoded.

In MP4 and Matroska a packet is a row of units, each behind its length (ISO/IEC 14496-15). The first
byte of a unit says what it is (ITU-T H.264 and H.265, each with table 7-1).
"""

from __future__ import annotations

from av.packet import Packet

# Where a stream's configuration record has the size of the lengths, in the last two bits.
SIZE_OF_LENGTHS = {"h264": 4, "hevc": 21}
H264_SLICES = range(1, 6)
HEVC_SLICES = range(32)
HEVC_RANDOM_ACCESS = range(16, 22)


class Units:
    """Reads the types of units.

    Args:
        codec: Name of the codec; of others than H.264 and HEVC nothing is known.
        record: The stream's configuration record.

    Attributes:
        tell_needs: Whether units say if other pictures need theirs. In HEVC a picture that its
            temporal layer does not need may be needed by a higher one, so there must be one layer.
    """

    def __init__(self, codec: str, record: bytes) -> None:
        at = SIZE_OF_LENGTHS.get(codec, len(record))
        self._codec = codec if at < len(record) and record[0] == 1 else ""
        self._length = (record[at] & 3) + 1 if self._codec else 0
        self.tell_needs = self._codec == "h264" or (
            self._codec == "hevc" and record[at] >> 3 & 7 == 1
        )

    def needed(self, packet: Packet) -> bool:
        """Whether other pictures may be decoded from a packet's, as far as it tells."""
        slices = self._slices(packet) if self.tell_needs else []
        if not slices:
            return True
        if self._codec == "h264":  # nal_ref_idc
            return any(byte >> 5 & 3 for byte in slices)
        return any(_hevc_type(byte) > 14 or _hevc_type(byte) % 2 for byte in slices)

    def begins(self, packet: Packet) -> bool:
        """Whether a key frame is one. Containers call pictures key frames that are none, which
        H.264's decoder notices by itself.
        """
        if self._codec != "hevc":
            return True
        slices = self._slices(packet)
        return bool(slices) and _hevc_type(slices[0]) in HEVC_RANDOM_ACCESS

    def _slices(self, packet: Packet) -> list[int]:
        """The first byte of each part of the picture; nothing where the packet is damaged."""
        data, at = memoryview(packet), 0
        found: list[int] = []
        while at + self._length < len(data):
            size = int.from_bytes(data[at : at + self._length], "big")
            if not size:
                return []
            at += self._length
            byte = data[at]
            picture = (
                byte & 31 in H264_SLICES
                if self._codec == "h264"
                else _hevc_type(byte) in HEVC_SLICES
            )
            if picture:
                found.append(byte)
            at += size
        return found if at == len(data) else []


def _hevc_type(byte: int) -> int:
    return byte >> 1 & 63
