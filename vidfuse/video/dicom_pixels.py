"""From the values stored in a DICOM file to frames, by what the file states and fixed rules.

Grey, with the stored value mapped to x by the file's modality (rescale slope and intercept, or
lookup table), becomes ``round(255 y)`` with y clipped to 0..1 and (PS3.3, C.11.2)

* the file's VOI lookup table where it has one, by the table's own bits;
* else its first window, centre c and width w: ``y = (x - (c - 1/2)) / (w - 1) + 1/2``, or
  ``(x - c) / w + 1/2`` for LINEAR_EXACT, or ``1 / (1 + exp(-4 (x - c) / w))`` for SIGMOID;
* else the whole range of the stored bits. The values in the frame never matter.

MONOCHROME1, where the lowest value is white, is inverted. Palettes are looked up, YBR becomes RGB,
and of more than eight bits of colour the highest eight are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

from vidfuse.video.frames import Pixels

Values = NDArray[np.float64]


def to_rgb(file: str, header: Dataset, frame: int) -> Pixels:
    """Read one frame.

    Args:
        file: The DICOM file.
        header: Its header, without the pixels.
        frame: Index of the frame, from 0.

    Returns:
        ``uint8 [H, W, 3]`` RGB.

    Raises:
        Exception: Whatever pydicom raises on damaged files and those that it does not support.
    """
    deflated = header.file_meta.TransferSyntaxUID.is_deflated
    stored = pixel_array(dcmread(file) if deflated else file, index=frame)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)
        return _high_bits(colours, 16 if colours.dtype.itemsize > 1 else 8)[..., :3]
    if stored.ndim == 3:
        return _high_bits(stored, int(header.BitsStored))
    grey = np.round(255 * np.clip(_grey(stored, header, frame), 0, 1)).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _high_bits(values: NDArray[Any], bits: int) -> Pixels:
    return (values >> max(0, bits - 8)).astype(np.uint8)


def _grey(stored: NDArray[Any], header: Dataset, frame: int) -> Values:
    """Brightness, 0 to 1 where it is within the window."""
    if "VOILUTSequence" in header:
        table = header.VOILUTSequence[0]
        values = apply_modality_lut(stored, header).astype(np.int64)
        looked_up: NDArray[Any] = apply_voi(values, header, 0)
        return looked_up / (2.0 ** int(table.LUTDescriptor[2]) - 1)
    centre = _stated(header, frame, "FrameVOILUTSequence", "WindowCenter")
    width = _stated(header, frame, "FrameVOILUTSequence", "WindowWidth")
    if centre is not None and width is not None and width > 0:
        function = header.get("VOILUTFunction", "LINEAR")
        return _window(_modality(stored, header, frame), centre, width, function)
    bits = int(header.BitsStored)
    lowest = -(2.0 ** (bits - 1)) if header.PixelRepresentation else 0.0
    return (stored - lowest) / (2.0**bits - 1)


def _modality(stored: NDArray[Any], header: Dataset, frame: int) -> Values:
    if "ModalityLUTSequence" in header:
        return np.asarray(apply_modality_lut(stored, header), np.float64)
    slope = _stated(header, frame, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = _stated(header, frame, "PixelValueTransformationSequence", "RescaleIntercept")
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _window(values: Values, centre: float, width: float, function: str) -> Values:
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT" or width < 1:
        return (values - centre) / width + 0.5
    if width == 1:
        return np.asarray(values > centre - 0.5, np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _stated(header: Dataset, frame: int, group: str, name: str) -> float | None:
    """A number that is stated for the file, or in a group for this frame or for all."""
    holders = [header]
    for groups, index in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        items = header.get(groups) or []
        if index < len(items):
            holders += items[index].get(group) or []
    for holder in holders:
        value = holder.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = value[0] if value else None  # alternatives, the first to begin with
        if value is not None and value != "":
            return float(value)
    return None
