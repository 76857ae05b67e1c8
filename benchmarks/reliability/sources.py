"""Sound clips in every format, made from a few frames of a sample."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from lab import SAMPLE_DATA
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]
VIDEOS = {  # file: codec, pixel format
    "h264.mp4": ("libx264", "yuv420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "h264.mkv": ("libx264", "yuv420p"),
    "hevc.mp4": ("libx265", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "mjpeg.mov": ("mjpeg", "yuvj420p"),
    "frame.gif": ("gif", "rgb8"),
    "h264.ts": ("libx264", "yuv420p"),
}
PICTURES = ("png", "jpg", "tif", "bmp", "webp")


def make_sources(folder: Path) -> list[Path]:
    """One clip of each format that the libraries here can write, the same frames in all."""
    frames = sample_frames(12)
    made = []
    for name, (codec, pixels) in VIDEOS.items():
        try:
            made.append(write_video(folder / name, frames, codec, pixels))
        except (av.FFmpegError, ValueError, LookupError):
            (folder / name).unlink(missing_ok=True)  # this build of FFmpeg has no such encoder
    for kind in PICTURES:
        clip = folder / f"{kind}_pictures"
        clip.mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(clip / f"{number:03}.{kind}")
        made.append(clip)
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    made.append(folder / "pages.tif")
    with suppress(ImportError):  # pydicom is an extra
        made += write_dicom(folder, frames)
    return made


def sample_frames(count: int) -> Frames:
    with av.open(str(SAMPLE_DATA / "wave" / "g11_1.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(decoded[:count])


def write_video(path: Path, frames: Frames, codec: str, pixels: str) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_dicom(folder: Path, frames: Frames) -> list[Path]:
    """A file with all frames, and a series of files with one each."""
    whole = folder / "frames.dcm"
    dicom_file(whole, frames, NumberOfFrames=len(frames))
    series = folder / "series"
    series.mkdir()
    for number, frame in enumerate(frames):
        dicom_file(series / f"{number:03}.dcm", frame[None], InstanceNumber=number)
    return [whole, series]


def dicom_file(path: Path, frames: Frames, **values: object) -> None:
    """An uncompressed grey DICOM file; ``values`` are further attributes."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.PatientName = "SECRET^NAME"
    file.SeriesInstanceUID = "1.2.4"
    file.Rows, file.Columns = frames.shape[1:3]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = frames[..., 0].tobytes() if frames.ndim == 4 else frames.tobytes()
    for name, value in values.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
