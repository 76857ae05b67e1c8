"""Frame files that say what is not so, each in a few bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence


def png(
    width: int,
    height: int,
    data: bytes = b"",
    *,
    bits: int = 8,
    colour: int = 2,
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG file of this header, of these compressed pixels, and of more chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def black_rows(bytes_a_row: int, rows: int) -> bytes:
    """Compressed pixels of a PNG."""
    return zlib.compress(bytes(bytes_a_row + 1) * rows, 9)


def animated_png(frames: int) -> bytes:
    """One frame, where so many are announced."""
    control = struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 10, 0, 0)
    extra = [(b"acTL", struct.pack(">II", frames, 0)), (b"fcTL", control)]
    return png(8, 8, black_rows(24, 8), extra=extra)


def gif(side: int, frames: int) -> bytes:
    """A screen of ``side`` pixels, with frames of one pixel."""
    header = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\0\x0a\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    return header + (frame + b"\x02\x02\x44\x01\0") * frames + b"\x3b"


def bmp(width: int, height: int) -> bytes:
    """A header alone."""
    return b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


def tiff(tags: Sequence[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """One directory of (tag, type, count, value), and where the next one is said to be."""
    fields = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + struct.pack("<I", following)


def tiff_picture(width: int, height: int, following: int = 0) -> bytes:
    """A grey frame of this size whose pixels are said to stand at byte 8."""
    sizes = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
    ]
    strips = [
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width * height % 2**32),
    ]
    return tiff(sizes + strips, following)


def big_tiff(offset: int) -> bytes:
    """The header of a BigTIFF whose first directory is at ``offset``."""
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", offset)
