"""What a file may not do: take all memory, lead to other files, start programs, hide its damage."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidfuse.errors import InputError
from vidfuse.video import decoder
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.image import read_image
from vidfuse.video.pool import DecodePool

MEGABYTE = 10**6
DECODERS = ("auto", "pyav", "decord")


def png(width: int, height: int, rows: int, *, interlaced: bool = False, value: int = 200) -> bytes:
    """A PNG of grey pixels of which only the first rows are there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, int(interlaced))
    data = zlib.compress((b"\0" + bytes([value]) * width) * rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*pair) for pair in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def request(path: Path, size: int = 32) -> FrameRequest:
    return FrameRequest(str(path), "uniform", 4, size=size)


def test_a_file_too_small_for_what_it_announces_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(11000, 11000, 1))
    with pytest.raises(OSError, match="announces more pixels than so small a file can hold"):
        read_image(str(tmp_path / "a.png"))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("value", [0, 200])
def test_missing_pixels_are_damage(tmp_path: Path, interlaced: bool, value: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(64, 64, 16, interlaced=interlaced, value=value))
    # Of interlaced ones Pillow notices it too.
    with pytest.raises(OSError, match=r"only \d+% of its pixels|truncated|unrecogni"):
        read_image(str(path))


def test_a_frame_with_missing_pixels_is_replaced_by_its_neighbour(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(8, 8, 8 if number != 1 else 2))
    frames = read_frames(request(tmp_path), "images")
    assert frames.warnings == [
        "1.png cannot be read (only 25% of its pixels are there); a frame beside it was used"
    ]


def test_libraries_do_not_quote_the_file(tmp_path: Path) -> None:
    whole = png(8, 8, 8)
    (tmp_path / "a.png").write_bytes(whole.replace(b"IDAT", b"\xffSec"))
    with pytest.raises(InputError) as caught:
        read_frames(request(tmp_path / "a.png"), "images")
    assert "Sec" not in caught.value.reason


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 200)])
def test_black_frames_are_whole(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    Image.new(mode, size).save(tmp_path / "a.png")
    assert not read_image(str(tmp_path / "a.png")).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 3), (8, 8), (33, 17)])
def test_interlaced_frames_are_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    import av

    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "rgb24"
    codec.time_base = Fraction(1, 25)
    codec.flags |= 1 << 18  # AV_CODEC_FLAG_INTERLACED_DCT, by which this encoder interlaces
    packets = [*codec.encode(av.VideoFrame.from_ndarray(image, "rgb24")), *codec.encode(None)]
    data = b"".join(map(bytes, packets))
    assert data[28] == 1
    (tmp_path / "a.png").write_bytes(data)
    assert (read_image(str(tmp_path / "a.png")) == image).all()


def test_frames_are_not_held_at_full_size(tmp_path: Path) -> None:
    """Ten frames of 27 MB each, in a process that may take no more than a few of them."""
    for number in range(10):
        Image.new("RGB", (3000, 3000), (number, 90, 90)).save(tmp_path / f"{number}.png")
    with DecodePool("pyav", workers=1, memory=250 * MEGABYTE) as pool:
        frames = pool.submit(FrameRequest(str(tmp_path), "uniform", 10, size=32)).result()
    assert frames.pixels[:, 0, 0, 0].tolist() == list(range(10))
    assert (frames.width, frames.height) == (3000, 3000)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A frame whose pixels take 300 MB."""
    path = tmp_path / "large" / "0.png"
    path.parent.mkdir()
    Image.new("RGB", (10000, 10000), (1, 2, 3)).save(path, compress_level=1)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are watched, see below")
def test_a_breach_of_the_memory_bound_costs_one_record(clip: Path, large: Path) -> None:
    with DecodePool("auto", workers=1, memory=200 * MEGABYTE) as pool:
        answers = dict(pool.map(map(request, [clip, large, clip])))
        bad = answers[request(large)]
        assert isinstance(bad, InputError)
        assert bad.reason == "decoding it takes more than 0.2 GB of memory"
        assert "--memory" in str(bad.hint)
        good = answers[request(clip)]
        assert isinstance(good, Frames)
        assert len(good.times) == 4


def test_a_process_that_is_watched_ends(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems without a limit, and with a GPU's libraries."""
    (tmp_path / "sitecustomize.py").write_text(
        "import functools, vidfuse.machine as system\n"
        "system.limit_memory = functools.partial(system.limit_memory, resident=True)\n"
    )
    package = Path(decoder.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{package}")
    with (
        DecodePool("auto", workers=1, memory=200 * MEGABYTE) as pool,
        pytest.raises(InputError, match=r"takes more than 0\.2 GB of memory"),
    ):
        pool.submit(request(large)).result()


# As much of torchcodec as a clip needs, and as much memory as torch and CUDA take.
LARGE_LIBRARY = """
import types, av
held, ffmpeg_major_version = b"x" * (300 << 20), 7

class VideoDecoder:
    def __init__(self, path, **options):
        with av.open(path) as container:
            frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        self.times, self.frames = zip(*frames)
        height, width, _ = self.frames[0].shape
        self.metadata = types.SimpleNamespace(
            width=width, height=height, begin_stream_seconds=self.times[0]
        )

    def __len__(self):
        return len(self.times)

    def get_frames_at(self, numbers):
        import numpy as np
        tensor = lambda list: types.SimpleNamespace(
            cpu=lambda: types.SimpleNamespace(numpy=lambda: np.stack([list[n] for n in numbers]))
        )
        return types.SimpleNamespace(data=tensor(self.frames), pts_seconds=tensor(self.times))

decoders = types.SimpleNamespace(VideoDecoder=VideoDecoder)
"""


def test_what_libraries_take_is_not_the_clips_fault(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchcodec.py").write_text(LARGE_LIBRARY)
    (tmp_path / "sitecustomize.py").write_text(
        "import vidfuse.video.torchcodec_backend as backend\n"
        "backend.version = lambda name: '99.0'  # whatever torch is installed\n"
    )
    package = Path(decoder.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{package}")
    monkeypatch.syspath_prepend(tmp_path)  # where the pool looks whether it is installed
    with DecodePool("torchcodec", workers=1, memory=150 * MEGABYTE) as pool:
        assert len(pool.submit(request(clip)).result().times) == 4


def test_dicom_that_states_more_frames_than_it_can_have(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")
    from test_dicom import cine, read

    path = cine(tmp_path / "a.dcm", 6)
    stated = path.read_bytes()
    for count in (b"1000000000", b"-5", b"0", b"9" * 5000):
        element = b"\x28\x00\x08\x00IS" + struct.pack("<H", 2)
        count = count.ljust(len(count) + len(count) % 2)
        other = element[:-2] + struct.pack("<H", len(count)) + count
        path.write_bytes(stated.replace(element + b"6 ", other))
        if count.strip() == b"0":
            assert len(read(path).times) == 1  # as one that states none
            continue
        with pytest.raises(InputError, match="a number of frames that it cannot have"):
            read(path)


def test_deflated_dicom(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")
    from test_dicom import cine, read, shown

    dataset = pydicom.dcmread(cine(tmp_path / "a.dcm"))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert shown(read(tmp_path / "b.dcm")) == [0, 10, 20, 30, 40, 50]


@pytest.fixture
def pools() -> Iterator[list[DecodePool]]:
    from vidfuse.video.backends import installed

    found = [
        DecodePool(name, workers=1) for name in DECODERS if name != "decord" or installed(name)
    ]
    yield found
    for pool in found:
        pool.close()


PLAYLISTS = {
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {name}\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation'
    ' id="1" codecs="avc1" width="64" height="64" bandwidth="1"><BaseURL>{url}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_files_that_lead_to_others_are_not_opened(
    name: str, clip: Path, tmp_path: Path, pools: list[DecodePool]
) -> None:
    (tmp_path / "neighbour.mp4").write_bytes(clip.read_bytes())
    text = PLAYLISTS[name].format(url=f"file://{clip}", name="neighbour.mp4")
    (tmp_path / name).write_text(text)
    for pool in pools:
        assert len(pool.submit(request(tmp_path / "neighbour.mp4")).result().times) == 4
        with pytest.raises(InputError, match="not a video that can be opened"):
            pool.submit(request(tmp_path / name)).result()


def test_addresses_are_not_fetched(pools: list[DecodePool]) -> None:
    for pool in pools:
        with pytest.raises(InputError, match="no such file"):
            pool.submit(FrameRequest("http://127.0.0.1:9/clip.mp4", "uniform", 4)).result()


@pytest.mark.skipif(os.name == "nt", reason="needs a program of its own on the path")
def test_no_program_is_started_for_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(InputError, match="not a frame"):
        read_frames(request(tmp_path / "a.png"), "images")
    assert not started.exists()
