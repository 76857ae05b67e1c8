"""DICOM files with several frames and series, made here; no value of theirs may come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from vidfuse.data.files import is_frame_folder, walk_videos
from vidfuse.errors import InputError
from vidfuse.video import decoder
from vidfuse.video.backends import image_backend
from vidfuse.video.decoder import read_frames
from vidfuse.video.dicom import DicomReader
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool

SERIES = generate_uid()
RAMP = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)


def write(path: Path, pixels: np.ndarray, compressed: bool = False, **attributes: Any) -> Path:
    """A file of 12 stored bits (8 for uint8), or of colour where the last axis is 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
    ds.PatientName, ds.PatientID, ds.SeriesInstanceUID = "Secret^Person", "S123", SERIES
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2 and pixels.dtype == np.uint8
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    shape = pixels.shape[:-1] if colour else pixels.shape
    if colour:
        ds.PlanarConfiguration = 0
    if len(shape) == 3:
        ds.NumberOfFrames = shape[0]
    ds.Rows, ds.Columns = shape[-2:]
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = 8 if ds.BitsAllocated == 8 else 12
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(ds, name, value)
    if compressed:
        ds.compress(RLELossless)
    ds.save_as(path, enforce_file_format=True)
    return path


def cine(path: Path, count: int = 6, **attributes: Any) -> Path:
    frames = np.stack([np.full((4, 6), 10 * i, np.uint8) for i in range(count)])
    return write(path, frames, **attributes)


def read(path: Path, **options: Any) -> Frames:
    request = FrameRequest(str(path), **{"sampling": "stride:1", "frames": 99, **options})
    return read_frames(request, "dicom")


def shown(frames: Frames) -> list[int]:
    return frames.pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_with_frames(tmp_path: Path, compressed: bool) -> None:
    path = cine(tmp_path / "a.dcm", compressed=compressed)
    assert image_backend(str(path)) == "dicom"
    assert [found.name for found in walk_videos(tmp_path)] == ["a.dcm"]
    frames = read(path)
    assert shown(frames) == [0, 10, 20, 30, 40, 50]
    assert (frames.count, frames.decoder, frames.warnings) == (6, "dicom", [])
    assert frames.times.tolist() == pytest.approx([i / 25 for i in range(6)])


@pytest.mark.parametrize(
    ("stated", "times"),
    [
        ({"FrameTime": "100"}, [0, 0.1, 0.2]),
        ({"FrameTimeVector": ["0", "100", "300"]}, [0, 0.1, 0.4]),
        ({"CineRate": "20"}, [0, 0.05, 0.1]),
        ({"RecommendedDisplayFrameRate": "5", "CineRate": "20"}, [0, 0.2, 0.4]),
        ({"FrameTime": "0"}, [0, 0.1, 0.2]),  # as told by fps
    ],
)
def test_times_that_the_file_states(
    tmp_path: Path, stated: dict[str, Any], times: list[float]
) -> None:
    frames = read(cine(tmp_path / "a.dcm", 3, **stated), fps=10)
    assert frames.times.tolist() == pytest.approx(times)


def test_a_series_follows_its_numbers(tmp_path: Path) -> None:
    for number in range(12):
        pixels = np.full((4, 6), 10 * number, np.uint8)
        write(tmp_path / f"{(number * 5) % 12}.dcm", pixels, InstanceNumber=number + 1)
    assert is_frame_folder(tmp_path)
    assert image_backend(str(tmp_path)) == "dicom"
    assert shown(read(tmp_path)) == [10 * i for i in range(12)]


def test_a_series_without_numbers_follows_positions_then_names(tmp_path: Path) -> None:
    for i in range(3):
        pixels = np.full((4, 6), 10 * i, np.uint8)
        placed: dict[str, Any] = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        placed["ImagePositionPatient"] = [0, 0, i]
        write(tmp_path / f"placed/{9 - i}.dcm", pixels, **placed)
        write(tmp_path / f"named/{i + 9}.dcm", pixels)
    assert shown(read(tmp_path / "placed")) == [0, 10, 20]
    named = read(tmp_path / "named")
    assert shown(named) == [0, 10, 20]
    assert named.warnings == ["frames are not numbered: taken in the order of their names"]


def test_times_in_a_heart_beat(tmp_path: Path) -> None:
    for i, milliseconds in enumerate((20, 50, 110)):
        numbered: dict[str, Any] = {"InstanceNumber": i, "TriggerTime": str(milliseconds)}
        write(tmp_path / f"{i}.dcm", np.zeros((4, 6), np.uint8), **numbered)
    assert read(tmp_path).times.tolist() == pytest.approx([0, 0.03, 0.09])


def test_without_a_window_the_stored_bits_count(tmp_path: Path) -> None:
    got = read(write(tmp_path / "a.dcm", RAMP)).pixels[0, ..., 0]
    assert (got == np.round(RAMP / 4095 * 255)).all()
    signed = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    assert (read(write(tmp_path / "b.dcm", signed)).pixels[0, ..., 0] == got).all()


def test_windows(tmp_path: Path) -> None:
    """Against pydicom's own windowing, which keeps the range of the stored bits."""
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        window: dict[str, Any] = {
            "WindowCenter": 1500,
            "WindowWidth": 2001,
            "VOILUTFunction": function,
        }
        path = write(tmp_path / f"{function}.dcm", RAMP, **window)
        own = pydicom.pixels.apply_windowing(RAMP, pydicom.dcmread(path)) / 4095 * 255
        assert np.abs(read(path).pixels[0, ..., 0] - own).max() <= 0.51


def test_rescaled_values_and_several_windows(tmp_path: Path) -> None:
    scale: dict[str, Any] = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    window: dict[str, Any] = {"WindowCenter": [1000, 40], "WindowWidth": [2001, 80]}
    got = read(write(tmp_path / "a.dcm", RAMP, **scale, **window)).pixels[0, ..., 0]
    assert got.tolist() == [[0, 128, 255], [255, 255, 255]]


def test_a_window_in_the_functional_groups(tmp_path: Path) -> None:
    window, frame = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 2000, 2001
    frame.FrameVOILUTSequence = [window]
    path = write(tmp_path / "a.dcm", RAMP[None], SharedFunctionalGroupsSequence=[frame])
    assert read(path).pixels[0, 0, :, 0].tolist() == [0, 0, 128]


def test_a_lookup_table(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 0, 8], [0, 51, 255]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    pixels = np.array([[0, 1, 2, 3]], np.uint8)
    path = write(tmp_path / "a.dcm", pixels, VOILUTSequence=[table])
    assert read(path).pixels[0, 0, :, 0].tolist() == [0, 51, 255, 255]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")
    assert (read(path).pixels[0, ..., 0] == 255 - np.round(RAMP / 4095 * 255)).all()


def test_colour(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[1, ..., 2] = 200, 100, 50
    assert (read(write(tmp_path / "rgb.dcm", pixels)).pixels == pixels).all()
    ybr = pydicom.pixels.convert_color_space(pixels, "RGB", "YBR_FULL")
    path = write(tmp_path / "ybr.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    assert np.abs(read(path).pixels.astype(int) - pixels).max() <= 2


def test_what_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "junk.dcm").write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match="not a DICOM file"):
        read(tmp_path / "junk.dcm")
    for i in range(2):
        pixels = np.zeros((4, 6), np.uint8)
        write(tmp_path / f"two/{i}.dcm", pixels, SeriesInstanceUID=generate_uid())
        cine(tmp_path / f"cines/{i}.dcm")
    with pytest.raises(InputError, match="2 DICOM series in one folder"):
        read(tmp_path / "two")
    with pytest.raises(InputError, match="several frames each"):
        read(tmp_path / "cines")


def test_damage_and_what_the_patient_is_called_stay_apart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], pool: DecodePool
) -> None:
    """Neither warnings nor errors nor what is printed quote the file."""
    for i in range(4):
        odd: dict[str, Any] = {
            "InstanceNumber": i + 1,
            "PatientBirthDate": "Secret",
            "WindowCenter": "1500",
        }
        write(tmp_path / f"{i}.dcm", RAMP, **odd, WindowWidth="2001")
    whole = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(whole[:-6])
    (tmp_path / "3.dcm").write_bytes(b"Secret")
    frames = pool.submit(FrameRequest(str(tmp_path), "uniform", 8)).result()
    assert frames.count == 3
    assert "3.dcm is not a DICOM file with frames: left out" in frames.warnings
    assert any(line.startswith("1.dcm cannot be read (damaged") for line in frames.warnings)
    printed = capfd.readouterr()
    assert "Secret" not in str(frames.header()) + printed.out + printed.err


def test_a_file_without_a_suffix_is_known_by_its_mark(tmp_path: Path, pool: DecodePool) -> None:
    path = cine(tmp_path / "a.dcm").rename(tmp_path / "IM000001")
    assert pool.submit(FrameRequest(str(path), "uniform", 3)).result().decoder == "dicom"


def test_without_the_package_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cine(tmp_path / "a.dcm")
    monkeypatch.setattr(decoder, "installed", lambda backend: False)
    with pytest.raises(InputError, match=r"pip install 'vidfuse\[dicom\]'"):
        read(path)


def test_compression_that_nothing_reads(tmp_path: Path) -> None:
    path = cine(tmp_path / "a.dcm")
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    header.PixelData = encapsulate([b"\xff\xd8 of no use"] * 6)
    header.save_as(path)
    reader = DicomReader(str(path), 25)
    with pytest.raises(InputError, match=r"no installed package reads .*JPEG Lossless"):
        reader.read(reader.frame_times.times)
