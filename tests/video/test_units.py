"""Types of units, read from packets made by hand."""

from __future__ import annotations

import pytest
from av.packet import Packet

from vidfuse.video.units import Units

AVC = bytes([1, 100, 0, 30, 0xFF])
HVC = bytes([1, *[0] * 20, 1 << 3 | 3])
LAYERS = bytes([1, *[0] * 20, 3 << 3 | 3])


def packet(*units: bytes) -> Packet:
    return Packet(b"".join(len(unit).to_bytes(4, "big") + unit for unit in units))


def h264(kind: int, needed: int) -> bytes:
    return bytes([needed << 5 | kind, 1, 2, 3])


def hevc(kind: int) -> bytes:
    return bytes([kind << 1, 1, 2, 3])


def test_h264() -> None:
    units = Units("h264", AVC)
    assert units.tell_needs
    assert units.needed(packet(h264(1, 2)))
    assert units.needed(packet(h264(6, 0), h264(5, 3)))
    assert not units.needed(packet(h264(6, 0), h264(1, 0), h264(1, 0)))
    assert units.needed(packet(h264(1, 0), h264(1, 1))), "one field of two is"
    assert units.needed(packet(h264(6, 0))), "no picture in it: unknown"
    assert units.begins(packet(h264(1, 2)))


def test_hevc() -> None:
    units = Units("hevc", HVC)
    assert units.tell_needs
    assert not units.needed(packet(hevc(39), hevc(0)))  # TRAIL_N
    assert not units.needed(packet(hevc(8)))  # RASL_N
    assert units.needed(packet(hevc(1)))  # TRAIL_R
    assert units.needed(packet(hevc(20)))  # IDR_N_LP, whose N means another thing
    assert units.begins(packet(hevc(32), hevc(19)))
    assert units.begins(packet(hevc(21)))
    assert not units.begins(packet(hevc(1)))


def test_a_higher_layer_may_need_it() -> None:
    units = Units("hevc", LAYERS)
    assert not units.tell_needs
    assert units.needed(packet(hevc(0)))
    assert units.begins(packet(hevc(19)))
    assert not units.begins(packet(hevc(0)))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_damage_is_not_left_out(codec: str) -> None:
    units = Units(codec, AVC if codec == "h264" else HVC)
    sound = bytes(packet(h264(1, 0) if codec == "h264" else hevc(0)))
    assert not units.needed(Packet(sound))
    for data in (bytes(40), sound[:-1], sound + b"\1", sound + bytes(8), b"\xff" * 40, b"\0"):
        assert units.needed(Packet(data))


def test_other_codecs_and_records_tell_nothing() -> None:
    unit = packet(h264(1, 0))
    for codec, record in (("vp9", b""), ("h264", b""), ("h264", b"\0\0\0\1g"), ("av1", AVC)):
        units = Units(codec, record)
        assert not units.tell_needs
        assert units.needed(unit)
        assert units.begins(unit)
