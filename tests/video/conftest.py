"""Decode processes, and a clip for them, that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agreement import BackendProcess
from awkward import H264, PATTERN, run

from vidfuse.doctor.probe import probe
from vidfuse.video.backends import installed
from vidfuse.video.pool import DecodePool


@pytest.fixture(scope="session")
def pool() -> Iterator[DecodePool]:
    with DecodePool("auto", workers=1) as pool:
        yield pool


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames of H.264."""
    run(PATTERN + H264, path := tmp_path_factory.mktemp("clips") / "clip.mp4")
    return path


@pytest.fixture(scope="session")
def decord_process() -> Iterator[BackendProcess]:
    if not installed("decord"):
        pytest.skip("decord has no wheel for this machine")
    process = BackendProcess("decord")
    yield process
    process.close()


@pytest.fixture(scope="session")
def torchcodec_process() -> Iterator[BackendProcess]:
    problem = probe("torchcodec").error if installed("torchcodec") else "it is not installed"
    if problem:
        pytest.skip(f"torchcodec does not work here: {problem}")
    process = BackendProcess("torchcodec")
    yield process
    process.close()
