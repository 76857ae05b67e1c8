"""Clips stored as frames: order, times, pixel formats, damage."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from vidfuse.errors import InputError
from vidfuse.video.backends import image_backend
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.image import read_image
from vidfuse.video.images import ImageReader, list_frames, sequence_warnings
from vidfuse.video.pool import DecodePool

GREY16 = np.array([[0, 255, 256], [257, 32768, 65535]], np.uint16)
HIGH = (GREY16 // 256).astype(np.uint8)


def flat(path: Path, value: int, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def folder_of(folder: Path, names: list[str]) -> Path:
    """A frame per name, each brighter by ten than the one before."""
    for i, name in enumerate(names):
        flat(folder / name, 10 * i)
    return folder


def read(path: Path, **options: object) -> Frames:
    request = FrameRequest(str(path), **{"sampling": "stride:1", "frames": 99} | options)  # type: ignore[arg-type]
    return read_frames(request, "images")


def shown(frames: Frames) -> list[int]:
    return frames.pixels[:, 0, 0, 0].tolist()


def test_natural_order_and_what_is_no_frame(tmp_path: Path) -> None:
    folder_of(tmp_path, ["8.png", "9.png", "10.png", "11.PNG"])
    for name in ("Thumbs.db", ".hidden.png", "._8.png", "notes.txt", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    frames = read(tmp_path)
    assert shown(frames) == [0, 10, 20, 30]
    assert (frames.decoder, frames.warnings) == ("images", [])
    assert (frames.width, frames.height, frames.count) == (6, 4, 4)


def test_times_follow_the_rate(tmp_path: Path) -> None:
    folder_of(tmp_path, [f"{i:04}.png" for i in range(10)])
    frames = read(tmp_path, fps=10)
    assert frames.times.tolist() == pytest.approx([i / 10 for i in range(10)])
    assert frames.end == 1
    assert shown(read(tmp_path, fps=10, start=0.2, end=0.5)) == [20, 30, 40]
    assert shown(read(tmp_path, start=0.2, end=0.5)) == [50, 60, 70, 80, 90]  # 25 a second
    uniform = [shown(read(tmp_path, sampling="uniform", frames=3, fps=fps)) for fps in (1, 25, 30)]
    assert uniform == [[10, 50, 80]] * 3


def test_only_the_chosen_frames_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, [f"{i}.png" for i in range(20)])
    opened: list[str] = []
    real = Image.open

    def counted(path: str, **more: Any) -> Image.Image:
        opened.append(Path(path).name)
        return real(path, **more)

    monkeypatch.setattr(Image, "open", counted)
    read(tmp_path, sampling="uniform", frames=2)
    assert opened == ["5.png", "15.png"]


def test_optical_flow_beside_the_frames_is_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, ["flow_x_00001.jpg", "flow_y_00001.jpg", "img_00001.jpg", "img_00002.jpg"])
    assert list_frames(str(tmp_path)) == ["img_00001.jpg", "img_00002.jpg"]
    folder_of(tmp_path / "only", ["flow_x_1.jpg", "flow_x_2.jpg"])
    assert len(list_frames(str(tmp_path / "only"))) == 2


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (["1.png", "2.png", "3.png", "7.png"], "3 numbers are missing, the first after 3.png"),
        (["1.png", "6.png", "11.png", "16.png"], None),
        (["a1.png", "a2.png", "mask1.png", "mask2.png"], "several series"),
        (["1.jpg", "1.png", "2.jpg", "2.png"], "as one sequence: 2 .jpg, 2 .png"),
        (["begin.png", "end.png"], None),
        (["1.png"], None),
    ],
)
def test_doubts(names: list[str], doubt: str | None) -> None:
    found = sequence_warnings(names)
    assert len(found) == (doubt is not None)
    assert all(doubt in line for line in found if doubt)


def test_a_broken_frame_is_replaced_by_its_neighbour(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "clip", [f"{i}.png" for i in range(5)])
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "4.png").write_bytes(b"")
    frames = read(folder)
    assert shown(frames) == [0, 10, 10, 30, 30]
    assert frames.times.tolist() == pytest.approx([0, 0.04, 0.04, 0.12, 0.12])
    assert [line.split(" (")[0] for line in frames.warnings] == [
        "2.png cannot be read", "4.png cannot be read"
    ]  # fmt: skip


def test_many_broken_frames_are_an_error(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"0\.jpg cannot be read \(not a frame\), nor can"):
        read(tmp_path)


def test_sizes_may_differ(tmp_path: Path) -> None:
    flat(tmp_path / "1.png", 10)
    flat(tmp_path / "2.png", 20, (9, 9))
    frames = read(tmp_path, size=4)
    assert frames.pixels.shape == (2, 4, 4, 3)
    assert frames.warnings == ["its frames differ in size"]
    assert read(tmp_path).pixels.shape == (2, 4, 6, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":  # by hand, since not every Pillow writes these
        height, width = GREY16.shape
        path.write_bytes(b"P5 %d %d 65535\n" % (width, height) + GREY16.astype(">u2").tobytes())
    else:
        Image.fromarray(GREY16).save(path)
    got = read_image(str(path))
    assert (got == HIGH[..., None]).all()


def test_sixteen_bit_colour_follows_the_same_rule(tmp_path: Path) -> None:
    import av

    frame = av.VideoFrame.from_ndarray(np.stack([GREY16] * 3, -1), format="rgb48le")
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "rgb48be"
    codec.time_base = Fraction(1, 25)
    packets = [*codec.encode(frame.reformat(format="rgb48be")), *codec.encode(None)]
    (tmp_path / "a.png").write_bytes(b"".join(map(bytes, packets)))
    assert (read_image(str(tmp_path / "a.png")) == HIGH[..., None]).all()


def test_no_frame_is_stretched_to_its_own_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 2000]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png"))[..., 0].tolist() == [[3, 7]]


def test_tiff_where_white_is_zero(tmp_path: Path) -> None:
    Image.fromarray(GREY16).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert isinstance(image, TiffImageFile)
        if image.tag_v2[262] != 0:
            pytest.skip("this Pillow cannot write such a file")
    assert (read_image(str(tmp_path / "a.tif")) == 255 - HIGH[..., None]).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_without_a_range_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.ones((2, 2), kind)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="no fixed range"):
        read_image(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (3, 2), "white").convert(mode).save(path)
    assert (read_image(str(path)) == 255).all()
    assert read_image(str(path)).shape == (2, 3, 3)


def test_what_is_transparent_is_laid_over_black(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (200, 100, 50, 0)).save(tmp_path / "a.png")
    assert not read_image(str(tmp_path / "a.png")).any()
    Image.new("L", (2, 2), 7).save(tmp_path / "b.png", transparency=7)
    assert not read_image(str(tmp_path / "b.png")).any()


def test_orientation_flags_are_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[274] = 6  # shown turned by a quarter to the right
    image.save(tmp_path / "a.png", exif=exif)
    got = read_image(str(tmp_path / "a.png"))[..., 0]
    assert (got == np.rot90(np.asarray(image), -1)).all()


def test_a_tiff_with_pages_is_a_sequence(tmp_path: Path) -> None:
    pages = [Image.new("L", (6, 4), 10 * i) for i in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert image_backend(str(tmp_path / "a.tif")) == "images"
    assert shown(read(tmp_path / "a.tif")) == [0, 10, 20, 30]
    assert shown(read(tmp_path / "a.tif", start=0.04, end=0.12)) == [10, 20]


def test_what_is_no_frame(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(InputError, match="not a frame"):
        ImageReader(str(tmp_path / "a.png"), 25)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no frame in this folder"):
        ImageReader(str(tmp_path / "empty"), 25)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_a_pipe_among_frames_is_not_waited_for(tmp_path: Path) -> None:
    folder_of(tmp_path / "some", ["1.png", "3.png"])
    os.mkfifo(tmp_path / "some" / "2.png")
    frames = read(tmp_path / "some")
    assert shown(frames) == [0, 0, 10]
    assert frames.warnings == ["2.png is not a regular file; a frame beside it was used"]
    (tmp_path / "none").mkdir()
    os.mkfifo(tmp_path / "none" / "1.png")
    with pytest.raises(InputError, match=r"1\.png is not a regular file"):
        read(tmp_path / "none")


def test_in_decode_processes(tmp_path: Path, pool: DecodePool) -> None:
    folder = folder_of(tmp_path / "clip", [f"{i}.jpg" for i in range(30)])
    frames = pool.submit(FrameRequest(str(folder), "uniform", 4, size=4, fps=15)).result()
    assert frames.decoder == "images"
    assert (frames.count, frames.end) == (30, 2)
    assert frames.times.tolist() == pytest.approx([3 / 15, 11 / 15, 18 / 15, 26 / 15])
    with DecodePool("decord", workers=1) as pinned:
        again = pinned.submit(FrameRequest(str(folder), "uniform", 4, size=4, fps=15)).result()
    assert (again.pixels == frames.pixels).all()
