"""Files that somebody made to hurt, each beside two sound clips that must be answered as always."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from judge import Finding, crashes, read_records, wrong_answer, wrong_records
from lab import SAMPLE_DATA, Lab, Run
from pictures import (
    animated_png,
    big_tiff,
    black_rows,
    bmp,
    gif,
    png,
    tiff,
    tiff_picture,
)
from sources import dicom_file, write_video

PART = "crafted"
COUNT = 1000  # all of them
REFUSED = "refused"  # a record with an error
NOTED = "refused, or answered with a warning"
ANSWERED = "answered"
EITHER = "either"
SOUND = SAMPLE_DATA / "wave" / "g12_1.mp4"
OTHER = SAMPLE_DATA / "blink" / "g12_1.mp4"


Writer = Callable[[Path], list[Path]]


@dataclass(frozen=True)
class Crafted:
    """A way to make bad inputs.

    Attributes:
        kind: Row of the table.
        name: Which one of it.
        expected: What the records of the inputs must say.
        write: Makes the inputs in a folder, and returns their paths.
    """

    kind: str
    name: str
    expected: str
    write: Writer


def of(kind: str, *crafted: tuple[str, str, Writer]) -> list[Crafted]:
    """Some of one kind: name, what is expected, and how they are written."""
    return [Crafted(kind, *each) for each in crafted]


def file(name: str, content: bytes) -> Writer:
    """Writes one file."""
    return lambda at: [put(at / name, content)]


def folder(suffix: str, content: bytes, count: int = 4) -> Writer:
    """Writes a folder of equal files."""

    def write(at: Path) -> list[Path]:
        for number in range(count):
            put(at / "clip" / f"{number}{suffix}", content)
        return [at / "clip"]

    return write


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def named(name: str | bytes, source: Path | None = SOUND) -> Writer:
    """Writes a sound clip, or an empty file, under an awkward name."""

    def write(at: Path) -> list[Path]:
        path = at / os.fsdecode(name)
        if source is None:
            path.touch()
        else:
            shutil.copyfile(source, path)
        return [path]

    return write


def link(name: str, target: str) -> Writer:
    def write(at: Path) -> list[Path]:
        (at / name).symlink_to(target)
        return [at / name]

    return write


def special(suffix: str, kind: int, count: int = 1) -> Writer:
    """Makes a FIFO or socket, or a folder of several."""

    def write(at: Path) -> list[Path]:
        paths = [at / f"a{suffix}"]
        if count > 1:
            (at / "clip").mkdir()
            paths = [at / "clip" / f"{number}{suffix}" for number in range(count)]
        for path in paths:
            os.mknod(path, kind | 0o600)
        return paths if count == 1 else [at / "clip"]

    return write


def playlist(name: str, text: str) -> Writer:
    """Writes a text that names a clip beside it; in the text {place} is the folder."""

    def write(at: Path) -> list[Path]:
        for suffix in (".bin", ".mp4"):
            shutil.copyfile(OTHER, at / f"neighbour{suffix}")
        with av.open(str(OTHER)) as source, av.open(str(at / "neighbour.ts"), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        return [put(at / name, text.format(place=at).encode())]

    return write


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation '
    'id="1" bandwidth="1"><BaseURL>{place}/neighbour.mp4</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>"
)


def dicom(**values: object) -> Writer:
    """Writes a DICOM file of one small frame with other attributes."""

    def write(at: Path) -> list[Path]:
        dicom_file(at / "a.dcm", np.zeros((1, 8, 8), np.uint8), **values)
        return [at / "a.dcm"]

    return write


def dicom_number(text: bytes, count: int = 1) -> Writer:
    """Writes DICOM files whose Number of Frames is a text that pydicom would not write."""

    def write(at: Path) -> list[Path]:
        written = at / "0.dcm"
        dicom_file(written, np.zeros((1, 8, 8), np.uint8), NumberOfFrames=7)
        padded = text + b" " * (len(text) % 2)
        old = b"\x28\x00\x08\x00IS" + struct.pack("<H", 2) + b"7 "
        new = b"\x28\x00\x08\x00IS" + struct.pack("<H", len(padded)) + padded
        content = written.read_bytes()
        assert old in content
        paths = [put(at / f"{i}.dcm", content.replace(old, new)) for i in range(count)]
        return paths if count == 1 else [at]

    return write


def deflated_dicom(at: Path) -> list[Path]:
    """Some megabytes that unfold to eight gigabytes."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    dicom_file(path := at / "a.dcm", np.zeros((1, 8, 8), np.uint8), NumberOfFrames=1000)
    content = path.read_bytes()
    syntax = content.index(b"1.2.840.10008.1.2.1\0")
    head = content[: syntax - 8]
    uid = DeflatedExplicitVRLittleEndian.encode() + b"\0" * (
        len(DeflatedExplicitVRLittleEndian) % 2
    )
    meta_end = 144 + struct.unpack("<I", content[140:144])[0]
    rest = content[syntax + 20 : meta_end]
    meta = bytearray(head + b"\x02\0\x10\0UI" + struct.pack("<H", len(uid)) + uid + rest)
    meta[140:144] = struct.pack("<I", len(meta) - 144)
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = pack.compress(content[meta_end:]) + pack.flush(zlib.Z_FULL_FLUSH)
    block = pack.compress(bytes(2**26)) + pack.flush(zlib.Z_FULL_FLUSH)
    return [put(path, bytes(meta) + start + block * 128 + pack.flush())]


def large_video(side: int) -> Writer:
    """Writes a video of one large frame, repeated."""

    def write(at: Path) -> list[Path]:
        one = write_video(
            at / "one.mkv", np.zeros((1, side, side, 3), np.uint8), "mjpeg", "yuvj420p"
        )
        with av.open(str(one)) as source, av.open(str(at / "a.mkv"), "w") as target:
            (packet, *_) = list(source.demux(video=0))
            stream = target.add_stream_from_template(source.streams.video[0])
            content = bytes(packet)
            for number in range(16):
                copy = av.Packet(content)
                copy.pts = copy.dts = number * 100
                copy.time_base, copy.stream, copy.is_keyframe = packet.time_base, stream, True
                target.mux(copy)
        one.unlink()
        return [at / "a.mkv"]

    return write


def patched(atom: bytes, offset: int, value: bytes) -> Writer:
    """Writes an MP4 file with other bytes so far behind the name of an atom."""

    def write(at: Path) -> list[Path]:
        content = bytearray(SOUND.read_bytes())
        place = content.index(atom) + 4 + offset
        content[place : place + len(value)] = value
        return [put(at / "a.mp4", bytes(content))]

    return write


def zipped(at: Path) -> list[Path]:
    with zipfile.ZipFile(at / "a.mp4", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(10**7))
    return [at / "a.mp4"]


def loop(at: Path) -> list[Path]:
    (at / "a.mp4").symlink_to("b.mp4")
    (at / "b.mp4").symlink_to("a.mp4")
    return [at / "a.mp4", at / "b.mp4"]


def folders_in_a_circle(at: Path) -> list[Path]:
    (at / "inner").mkdir()
    (at / "inner" / "outer").symlink_to("..")
    shutil.copyfile(SOUND, at / "inner" / "a.mp4")
    return [at / "inner" / "a.mp4"]


def empty_folder(at: Path) -> list[Path]:
    (at / "a.mp4").mkdir()
    return [at / "a.mp4"]


LARGE = 11585  # 134 megapixels, below Pillow's limit
BITS = black_rows(LARGE // 8 + 1, LARGE)
WIDE = [(256, 4, 1, 60000), (257, 4, 1, 60000)]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
HTML = b"<!doctype html><title>404</title><script>alert(1)</script>" + b"<p>not here</p>" * 50
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="99999999" height="99999999"><rect/></svg>'
HUGE = struct.pack(">I", 2**32 - 1)
DIGITS = b"9" * 5000

ALL = [
    *of(
        "PNG",
        (
            "four that announce 134 megapixels and hold none",
            NOTED,
            folder(".png", png(LARGE, LARGE)),
        ),
        (
            "four that announce 134 megapixels and hold a row",
            NOTED,
            folder(".png", png(LARGE, LARGE, black_rows(LARGE * 3, 1))),
        ),
        (
            "sixteen of 134 megapixels",
            EITHER,
            folder(".png", png(LARGE, LARGE, BITS, bits=1, colour=0), 16),
        ),
        ("of 2^31 - 1 pixels a side", REFUSED, folder(".png", png(2**31 - 1, 2**31 - 1))),
        ("of 2^32 - 1 pixels a side", REFUSED, folder(".png", png(2**32 - 1, 2**32 - 1))),
        ("of no pixels", REFUSED, folder(".png", png(0, 0))),
        ("half of the rows missing", NOTED, folder(".png", png(64, 64, black_rows(192, 32)))),
        (
            "1 GB of compressed text",
            EITHER,
            folder(
                ".png",
                png(
                    64,
                    64,
                    black_rows(192, 64),
                    extra=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**9), 1))],
                ),
                2,
            ),
        ),
        ("16-bit, 40,000 x 40,000", REFUSED, folder(".png", png(40000, 40000, bits=16))),
    ),
    *of(
        "APNG, GIF",
        ("APNG that announces 2^31 frames", EITHER, folder(".png", animated_png(2**31 - 1))),
        ("screen of 65,535 x 65,535", EITHER, file("a.gif", gif(65535, 20))),
        ("100,000 frames", EITHER, file("a.gif", gif(16, 100_000))),
    ),
    *of(
        "BMP",
        ("of 2^31 - 1 pixels a side", REFUSED, folder(".bmp", bmp(2**31 - 1, 2**31 - 1))),
        ("of 30,000 pixels a side, none there", REFUSED, folder(".bmp", bmp(30000, 30000))),
    ),
    *of(
        "TIFF",
        ("first directory beyond the end", REFUSED, file("a.tif", b"II*\0" + b"\xff" * 4)),
        ("second directory is the first", EITHER, file("a.tif", tiff_picture(2, 2, 8))),
        ("second directory beyond the end", EITHER, file("a.tif", tiff_picture(2, 2, 2**32 - 1))),
        ("65,535 fields announced", REFUSED, file("a.tif", b"II*\0\x08\0\0\0\xff\xff")),
        ("60,000 x 60,000, no pixels", REFUSED, file("a.tif", tiff(WIDE))),
        ("60,000 x 60,000, one strip", REFUSED, file("a.tif", tiff_picture(60000, 60000))),
        ("11,585 x 11,585, one short strip", NOTED, file("a.tif", tiff_picture(LARGE, LARGE))),
        (
            "field of 2^32 - 1 values",
            REFUSED,
            file("a.tif", tiff([(256, 4, 2**32 - 1, 8), (257, 4, 1, 4)])),
        ),
        ("BigTIFF, directory at 2^63", REFUSED, file("a.tif", big_tiff(2**63))),
        ("BigTIFF, directory at 2^64 - 1", REFUSED, file("a.tif", big_tiff(2**64 - 1))),
        ("folder of BigTIFFs, directory at 2^63", REFUSED, folder(".tif", big_tiff(2**63))),
    ),
    *of(
        "DICOM",
        ("Number of Frames of 5,000 digits", REFUSED, dicom_number(DIGITS)),
        ("folder, Number of Frames of 5,000 digits", REFUSED, dicom_number(DIGITS, 2)),
        ("Number of Frames of 4,000 digits", REFUSED, dicom_number(DIGITS[:4000])),
        ("a billion frames", REFUSED, dicom_number(b"1000000000")),
        ("minus seven frames", NOTED, dicom_number(b"-7")),
        ("letters for a number of frames", REFUSED, dicom_number(b"SECRETNAME")),
        (
            "65,535 x 65,535, one pixel there",
            REFUSED,
            dicom(Rows=65535, Columns=65535, PixelData=b"\0\0"),
        ),
        (
            "11,585 x 11,585, one pixel there",
            REFUSED,
            dicom(Rows=LARGE, Columns=LARGE, PixelData=b"\0\0"),
        ),
        (
            "pixels of 64 bits, 60,000 samples",
            REFUSED,
            dicom(BitsAllocated=64, SamplesPerPixel=60000),
        ),
        ("no rows", REFUSED, dicom(Rows=0)),
        ("deflated, eight gigabytes", REFUSED, deflated_dicom),
    ),
    *of(
        "file that opens others",
        ("HLS named .mp4, neighbour", REFUSED, playlist("a.mp4", HLS.format("neighbour.bin"))),
        ("HLS named .mp4, neighbour .mp4", REFUSED, playlist("a.mp4", HLS.format("neighbour.mp4"))),
        ("HLS named .mp4, neighbour .ts", REFUSED, playlist("a.mp4", HLS.format("neighbour.ts"))),
        (
            "HLS named .mp4, absolute, transport stream",
            REFUSED,
            playlist("a.mp4", HLS.format("file://{place}/neighbour.ts")),
        ),
        (
            "HLS named .mp4, absolute",
            REFUSED,
            playlist("a.mp4", HLS.format("file://{place}/neighbour.mp4")),
        ),
        ("HLS named .ts, absolute", REFUSED, playlist("a.ts", HLS.format("{place}/neighbour.mp4"))),
        (
            "ffconcat named .mp4, neighbour",
            REFUSED,
            playlist("a.mp4", "ffconcat version 1.0\nfile neighbour.mp4\n"),
        ),
        (
            "ffconcat named .mp4, absolute",
            REFUSED,
            playlist("a.mp4", "ffconcat version 1.0\nfile 'file:{place}/neighbour.mp4'\n"),
        ),
        ("DASH named .mp4, absolute", REFUSED, playlist("a.mp4", DASH)),
        (
            "MOV reference named .mov",
            REFUSED,
            playlist("a.mov", "RTSPtext\r\nfile://{place}/neighbour.mp4\r\n"),
        ),
    ),
    *of(
        "PostScript",
        ("named .png, a single file", REFUSED, file("a.png", EPS)),
        ("named .png, a folder", REFUSED, folder(".png", EPS)),
        ("named .tif", REFUSED, file("a.tif", EPS)),
    ),
    *of(
        "FIFO, socket, device",
        ("FIFO named a.mp4", REFUSED, special(".mp4", stat.S_IFIFO)),
        ("FIFO named a.tif", REFUSED, special(".tif", stat.S_IFIFO)),
        ("FIFO named a.dcm", REFUSED, special(".dcm", stat.S_IFIFO)),
        ("folder of FIFOs named .dcm", REFUSED, special(".dcm", stat.S_IFIFO, 3)),
        ("folder of FIFOs named .png", REFUSED, special(".png", stat.S_IFIFO, 3)),
        ("socket named a.mp4", REFUSED, special(".mp4", stat.S_IFSOCK)),
        ("link to /dev/zero named a.mp4", REFUSED, link("a.mp4", "/dev/zero")),
        ("link to /dev/zero named a.tif", REFUSED, link("a.tif", "/dev/zero")),
        ("link to /dev/zero named a.dcm", REFUSED, link("a.dcm", "/dev/zero")),
        ("link to /dev/tty named a.mp4", REFUSED, link("a.mp4", "/dev/tty")),
    ),
    *of(
        "link",
        ("to itself", REFUSED, link("a.mp4", "a.mp4")),
        ("to itself, named .tif", REFUSED, link("a.tif", "a.tif")),
        ("two to each other", REFUSED, loop),
        ("to nothing", REFUSED, link("a.mp4", "nothing.mp4")),
        ("folders in a circle", ANSWERED, folders_in_a_circle),
    ),
    *of(
        "name",
        ("with a newline", ANSWERED, named("a\nb.mp4")),
        ("with escape sequences", ANSWERED, named("a\x1b[31m\x1b]0;x\x07.mp4")),
        ("with escape sequences, empty file", REFUSED, named("a\x1b[31m\x1b]0;x\x07.mp4", None)),
        ("with a newline, empty file", REFUSED, named("a\nError: b.mp4", None)),
        ("of 250 bytes", ANSWERED, named("a" * 246 + ".mp4")),
        ("that is no text", ANSWERED, named(b"a\xff\xfe.mp4")),
        ("that is no text, empty file", REFUSED, named(b"a\xff\xfe.mp4", None)),
        ("with right-to-left override", ANSWERED, named("a\u202e4pm.mp4")),
        ("with quotes, comma, tab", ANSWERED, named("a',\"\t;b.mp4")),
        ("like a glob", ANSWERED, named("[a]*?.mp4")),
        ("like a formula", ANSWERED, named("=1+1.mp4")),
    ),
    *of(
        "other file named .mp4",
        ("HTML", REFUSED, file("a.mp4", HTML)),
        ("SVG", REFUSED, file("a.mp4", SVG)),
        ("ZIP", REFUSED, zipped),
        ("text", REFUSED, file("a.mp4", b"not a video\n" * 1000)),
        ("shell script", REFUSED, file("a.mp4", b"#!/bin/sh\nexit 1\n")),
        ("empty folder", REFUSED, empty_folder),
        ("subtitles", REFUSED, file("a.mp4", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n")),
    ),
    *of(
        "MP4",
        ("2^32 - 1 samples", EITHER, patched(b"stsz", 8, HUGE)),
        ("2^32 - 1 entries of times", EITHER, patched(b"stts", 4, HUGE)),
        ("2^32 - 1 chunks", EITHER, patched(b"stco", 4, HUGE)),
        ("each frame lasts 2^32 - 1", EITHER, patched(b"stts", 12, HUGE)),
        ("time scale 0", EITHER, patched(b"mdhd", 12, bytes(4))),
        ("65,535 pixels a side", EITHER, patched(b"avc1", 24, b"\xff" * 4)),
    ),
    *of(
        "video",
        ("8192 x 8192", EITHER, large_video(8192)),
        ("12,000 x 12,000", EITHER, large_video(12000)),
    ),
]


def naming_a_url(port: int) -> list[Crafted]:
    """Texts that name a clip on a server, which must not be asked."""
    url = f"http://127.0.0.1:{port}/clip.mp4"
    concat = f"ffconcat version 1.0\nfile {url}\n"
    kind = "file that opens others"
    return [
        Crafted(kind, "HLS named .mp4, URL", REFUSED, playlist("a.mp4", HLS.format(url))),
        Crafted(kind, "ffconcat named .mp4, URL", REFUSED, playlist("a.mp4", concat)),
    ]


def attack(lab: Lab, count: int) -> Iterator[Finding]:
    """Make each, predict it, and inspect a dataset that has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        known = ALL + naming_a_url(server.getsockname()[1])
        order = np.random.default_rng(lab.seed).permutation(len(known))[:count]
        chosen = [known[i] for i in sorted(order) if lab.only in name_of(known[i])]
        for crafted in chosen:
            yield from try_one(lab, crafted, server)


def name_of(crafted: Crafted) -> str:
    return f"{crafted.kind}: {crafted.name}"


def try_one(lab: Lab, crafted: Crafted, server: socket.socket) -> list[Finding]:
    """Predict what was made, between two sound clips; then a dataset that has it, as a folder."""
    dataset, gs = lab.place(PART), fake_ghostscript(lab)
    shutil.copytree(lab.sound[0].parent, dataset / "sound")
    place = dataset / "crafted"  # the other class of the dataset
    place.mkdir()
    inputs = crafted.write(place)
    name, env = name_of(crafted), {"PATH": f"{gs.parent}:{os.environ['PATH']}"}
    options = ("--model", lab.model, "--format", "jsonl")

    listed = [lab.sound[0], *inputs, lab.sound[1]]
    run = lab.run(("predict", *listed, *options), env=env)
    failures = crashes(lab, run, (0, 1)) + wrong_records(lab, run, listed) + called(gs, server)
    happened = ""
    if not any("record" in failure or "JSON" in failure for failure in failures):
        records = [record for record in read_records(run) if record["path"] not in lab.answers]
        happened = ", ".join(sorted({said(record) for record in records}))
        failures += [wrong for record in records for wrong in unexpected(crafted, record)]
    findings = [Finding(PART, f"{crafted.kind}: `predict`", happened, failures, name, run)]

    run = lab.run(("predict", dataset, *options), env=env)
    failures = crashes(lab, run, (0, 1)) + wrong_in_folder(lab, run, dataset) + called(gs, server)
    happened, what = f"exit code {run.code}", "a folder with each: `predict`"
    findings.append(Finding(PART, what, happened, failures, name, run))

    run = lab.run(("inspect", dataset), env=env)
    failures = crashes(lab, run, (0, 1)) + called(gs, server)
    happened, what = f"exit code {run.code}", "a dataset with each: `inspect`"
    return [*findings, Finding(PART, what, happened, failures, name, run)]


def wrong_in_folder(lab: Lab, run: Run, dataset: Path) -> list[str]:
    """How the records of the sound clips in a folder differ from what they always are."""
    try:
        records = {record["path"]: record for record in read_records(run)}
    except ValueError as error:
        return [f"stdout is not JSON lines: {error}"]
    wrong = []
    for path in lab.sound:
        record = records.get(str(dataset / "sound" / path.name))
        found = wrong_answer(lab, {**record, "path": str(path)}) if record else ["no record"]
        wrong += [f"{path.name}: {each}" for each in found]
    return wrong


def called(gs: Path, server: socket.socket) -> list[str]:
    """Whether a program was started or a server asked."""
    found = ["Ghostscript was started"] if (gs.parent / "called").exists() else []
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return found
    return [*found, "a server was asked"]


def said(record: dict[str, object]) -> str:
    if not record["ok"]:
        return "refused"
    return "answered with a warning" if record["warnings"] else "answered"


def unexpected(crafted: Crafted, record: dict[str, object]) -> list[str]:
    """What a record should not say."""
    got = said(record)
    allowed = {
        REFUSED: ("refused",),
        NOTED: ("refused", "answered with a warning"),
        ANSWERED: ("answered",),
        EITHER: ("refused", "answered", "answered with a warning"),
    }
    return [] if got in allowed[crafted.expected] else [f"{got}, should be {crafted.expected}"]


def fake_ghostscript(lab: Lab) -> Path:
    """A program named gs that only leaves a mark."""
    program = put(
        lab.place("programs") / "gs", b'#!/bin/sh\ntouch "$(dirname "$0")/called"\nexit 1\n'
    )
    program.chmod(0o755)
    return program
