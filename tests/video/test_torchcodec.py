"""torchcodec on machines where it is missing, unfit or wrong, and on a GPU: all of it with fakes.

Its real frames are compared in ``test_frames_are_right.py`` and ``test_awkward_videos.py``.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from awkward import PATTERN, run

from vidfuse.errors import InputError, UserError
from vidfuse.video import torchcodec_backend
from vidfuse.video.decoder import open_video
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import FrameTimes

TIMES = np.array([0.5, 0.6, 0.7, 0.8])  # of a stream that starts half a second late
FRAME_TIMES = FrameTimes(TIMES, 0.9)


class Tensor(SimpleNamespace):
    """One that lies on the device until it is asked to the CPU."""

    def cpu(self) -> SimpleNamespace:
        return SimpleNamespace(numpy=lambda: self.values)


class Fallback:
    """``VideoDecoder.cpu_fallback``: true where the CPU decodes what the GPU was to decode."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is not None

    def __str__(self) -> str:
        return f"[CUDA] Fallback status: Falling back due to: {self.reason}"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Fakes of torchcodec and torch; what is set on it changes what the next decoder does.

    Frames have the value of their number, and times of the stream's own: from 10 s on.
    """

    class VideoDecoder:
        metadata = SimpleNamespace(width=4, height=2, begin_stream_seconds=10.0)

        def __init__(self, path: str, **options: object) -> None:
            state.opened.append(options)
            if state.error:
                raise state.error
            self.cpu_fallback = Fallback(state.fallback)

        def __len__(self) -> int:
            return state.count

        def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
            if state.fails:
                raise state.fails
            pixels = np.stack([np.full((2, 4, 3), index, np.uint8) for index in indices])
            times = 10.0 + 0.1 * np.array(indices) + state.late
            return SimpleNamespace(data=Tensor(values=pixels), pts_seconds=Tensor(values=times))

    state = SimpleNamespace(
        count=4, late=0.0, error=None, fails=None, fallback=None, opened=[], contexts=[],
        __version__="0.17.0+cu130", ffmpeg_major_version=7,
        decoders=SimpleNamespace(VideoDecoder=VideoDecoder),
        gpu=True, versions={"torch": "2.15.0+cu132", "torchcodec": "0.17.0"},
    )  # fmt: skip
    cuda = SimpleNamespace(is_available=lambda: state.gpu)
    monkeypatch.setitem(sys.modules, "torchcodec", state)
    torch = SimpleNamespace(cuda=cuda, zeros=lambda *size, device: state.contexts.append(device))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(torchcodec_backend, "version", lambda name: state.versions[name])
    return state


def reader(path: str = "a.mp4", frame_times: FrameTimes | None = FRAME_TIMES):
    return torchcodec_backend.TorchCodecReader(path, frame_times)


def cuda_reader():
    return torchcodec_backend.TorchCodecCudaReader("a.mp4", FRAME_TIMES)


def test_frames_on_screen_at_their_times(library: SimpleNamespace) -> None:
    video = reader()
    pixels, times = video.read(np.array([0.0, 0.65, 0.8, 5.0]))
    assert [int(image[0, 0, 0]) for image in pixels] == [0, 1, 3, 3]
    assert times.tolist() == [0.5, 0.6, 0.8, 0.8]
    assert video.decoded == 3
    assert library.opened == [{"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "device": "cpu"}]


@pytest.mark.parametrize(
    ("change", "frame_times", "why"),
    [
        ({"count": 5}, FRAME_TIMES, "it counts 5 frames where the stream shows 4"),
        ({}, None, "PyAV cannot read its time stamps"),
        ({}, FrameTimes(TIMES[[0, 1, 1, 2]], 1.0), "several frames have the same time stamp"),
        ({"late": 0.04}, FRAME_TIMES, "its frame of 0.500 s is that of 0.540 s"),
    ],
)
def test_what_it_would_read_wrongly_is_refused(
    library: SimpleNamespace, change: dict[str, Any], frame_times: FrameTimes | None, why: str
) -> None:
    vars(library).update(change)
    with pytest.raises(InputError, match=f"torchcodec would return wrong frames here: {why}"):
        reader(frame_times=frame_times).read(TIMES)


def test_its_errors_are_told_without_places_in_its_sources(library: SimpleNamespace) -> None:
    place = "get_frame, /__w/torchcodec/src/SingleStreamDecoder.cpp:41, "
    library.error = RuntimeError(f"{place}Could not open input file: /clips/a.mp4 Invalid data")
    with pytest.raises(InputError) as caught:
        reader("/clips/a.mp4")
    said = "torchcodec cannot open it (Could not open input file: Invalid data)"
    assert caught.value.reason == said
    library.error, library.fails = None, RuntimeError(f"{place}no more frames")
    with pytest.raises(InputError, match=r"torchcodec fails to decode it \(no more frames\)"):
        reader().read(TIMES)


@pytest.mark.parametrize(
    ("name", "found", "needed"), [("torch", "2.10.1+cpu", "2.11"), ("torchcodec", "0.9.1", "0.12")]
)
def test_versions_that_do_not_fit_are_refused(
    library: SimpleNamespace, name: str, found: str, needed: str
) -> None:
    library.versions[name] = found
    with pytest.raises(UserError) as caught:
        reader()
    assert f"needs {name} {needed} or newer, and {found} is installed" in caught.value.message
    assert "vidfuse[torchcodec]" in (caught.value.hint or "")


@pytest.mark.skipif(
    tuple(int(part) for part in version("torch").split(".")[:2]) < (2, 11),
    reason="torchcodec is not asked with a torch before 2.11",
)
def test_missing_libraries_of_ffmpeg_stop_the_run_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer releases import without FFmpeg, older ones say on import what they lack."""
    run(PATTERN, clip := tmp_path / "clip.mp4")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    for code in (
        "ffmpeg_major_version = None",
        "raise RuntimeError('Could not load libtorchcodec. Likely causes: 1. FFmpeg')",
    ):
        (tmp_path / "torchcodec.py").write_text(code)
        with DecodePool("torchcodec", workers=1) as pool, pytest.raises(UserError) as caught:
            pool.submit(FrameRequest(str(clip), "uniform", 2)).result()
        assert not isinstance(caught.value, InputError)
        assert "does not find the shared libraries of FFmpeg" in caught.value.message
        assert "apt-get install ffmpeg" in (caught.value.hint or "")


@pytest.mark.usefixtures("library")
def test_a_package_that_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchcodec.py").write_text("raise OSError('libc10.so: undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchcodec")
    with pytest.raises(UserError, match=r"cannot be imported .*undefined symbol") as caught:
        reader()
    assert "pip install" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["torchcodec", "torchcodec-cuda"])
def test_without_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidfuse.video.backends.find_spec", lambda module: None)
    for ask in (lambda: DecodePool(name), lambda: open_video("a.mp4", name)):
        with pytest.raises(UserError, match=f"'{name}' is not installed") as caught:
            ask()
        assert "pip install 'vidfuse[torchcodec]'" in (caught.value.hint or "")


def test_on_a_gpu(library: SimpleNamespace) -> None:
    video = cuda_reader()
    pixels, times = video.read(TIMES)
    assert library.opened[0]["device"] == "cuda"
    assert [int(image[0, 0, 0]) for image in pixels] == [0, 1, 2, 3]
    assert times.tolist() == TIMES.tolist()
    assert video.warnings == []


def test_a_context_is_made_before_memory_is_counted(library: SimpleNamespace) -> None:
    torchcodec_backend.TorchCodecReader.load_libraries()
    assert library.contexts == []
    torchcodec_backend.TorchCodecCudaReader.load_libraries()
    assert library.contexts == ["cuda"]
    library.gpu = False
    torchcodec_backend.TorchCodecCudaReader.load_libraries()
    assert library.contexts == ["cuda"]


def test_a_fallback_to_the_cpu_is_reported_once(library: SimpleNamespace) -> None:
    library.fallback = "Video not supported"
    video = cuda_reader()
    for _ in range(2):
        video.read(TIMES)
    assert video.warnings == ["decoded on the CPU, not on the GPU (Video not supported)"]


def test_a_gpu_that_cannot_be_used(library: SimpleNamespace) -> None:
    library.gpu = False
    with pytest.raises(UserError, match="torch finds no NVIDIA GPU") as caught:
        cuda_reader()
    assert "--decoder torchcodec" in (caught.value.hint or "")
    library.gpu, library.__version__ = True, "0.12.0+cpu"
    with pytest.raises(UserError, match="built without CUDA"):
        cuda_reader()
    assert not library.opened
