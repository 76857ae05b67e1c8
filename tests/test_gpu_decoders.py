"""Frames that a GPU decodes beside those of PyAV; each skipped with doctor's reason elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidfuse.doctor.decoders import decoder
from vidfuse.doctor.probe import probe
from vidfuse.video.backends import BACKENDS
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool

# Not in tests/video, whose clips need the ffmpeg program: a machine with a GPU may not have it.
CLIP = Path(__file__).parents[1] / "sample_data" / "blink" / "g01_1.mp4"
SAME = 4.0  # mean difference of two conversions of a frame, of 255


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name, known in BACKENDS.items() if known.gpu])
def test_frames_are_those_of_pyav(name: str) -> None:
    found = decoder(name, probe(BACKENDS[name].module)).values
    if not found["found"]:
        pytest.skip(found["why"])
    request = FrameRequest(str(CLIP), "uniform", 16, size=128)
    with DecodePool(name, workers=2) as gpu, DecodePool("pyav", workers=1) as pyav:
        expected = pyav.submit(request).result()
        for _, frames in gpu.map([request] * 8):
            assert not isinstance(frames, Exception), frames
            assert frames.warnings == []
            assert frames.decoder == name
            assert np.array_equal(frames.times, expected.times)
            far = np.abs(frames.pixels.astype(np.int16) - expected.pixels).mean((1, 2, 3))
            assert far.max() < SAME
