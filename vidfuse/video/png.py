"""Checks of PNG files for all the pixels that they announce.

Pillow leaves pixels black that are missing at the end of a PNG's data, without an error, and takes
memory for what the header announces before it looks at any data. See the PNG specification (W3C,
third edition), sections 5 (chunks), 7.2 (scanlines), 8 (interlacing) and 10 (compression).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_DEFLATED = 1032  # bytes that a byte of deflated data can stand for, at most
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First column and row, and the steps from there, of each pass of an interlaced frame.
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
PIECE = 2**16  # bytes that are read and inflated at a time


class PngFile:
    """A PNG file, as its header announces it.

    Args:
        path: The file.

    Attributes:
        size: Bytes of its inflated data.
        interlaced: True where its rows are not in order.

    Raises:
        OSError: It is no PNG file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            head = file.read(29)
        if len(head) < 29 or head[:8] != SIGNATURE or head[12:16] != b"IHDR":
            raise OSError("cannot identify it as PNG")
        width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", head[16:29])
        self.interlaced = bool(interlace)
        passes = ADAM7 if interlace else ((0, 0, 1, 1),)
        bits = depth * CHANNELS.get(colour, 4)
        self.size = 0
        for left, top, across, down in passes:
            columns, rows = -(-(width - left) // across), -(-(height - top) // down)
            if columns > 0 and rows > 0:
                self.size += rows * (1 + (columns * bits + 7) // 8)

    def check_announced(self) -> None:
        """Refuse a file that is too small for what it announces, before memory is taken for it.

        Raises:
            OSError: It is.
        """
        if self.size > MOST_DEFLATED * os.path.getsize(self.path):
            raise OSError("it announces more pixels than so small a file can hold")

    def check_whole(self) -> None:
        """Refuse a file whose data end before its last pixel.

        Raises:
            OSError: They do.
        """
        found = self._inflated()
        if found < self.size:
            raise OSError(f"only {found / self.size:.0%} of its pixels are there")

    def _inflated(self) -> int:
        """Bytes that its data inflate to, counted without keeping them."""
        count, inflate = 0, zlib.decompressobj()
        with open(self.path, "rb") as file:
            file.seek(len(SIGNATURE))
            while len(chunk := file.read(8)) == 8:
                size, kind = struct.unpack(">I4s", chunk)
                if kind != b"IDAT":
                    file.seek(size + 4, os.SEEK_CUR)
                    continue
                while size and (data := file.read(min(size, PIECE))):
                    size -= len(data)
                    count += sum(map(len, _pieces(inflate, data)))
                file.seek(4, os.SEEK_CUR)  # the checksum, which Pillow checks
        return count


def _pieces(inflate: Any, data: bytes) -> Iterator[bytes]:
    """Inflated data, a piece at a time."""
    while True:
        piece = inflate.decompress(data, PIECE)
        yield piece
        data = inflate.unconsumed_tail
        if not data and len(piece) < PIECE:
            return
