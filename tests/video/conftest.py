"""Decode processes that the tests of this folder share."""

from collections.abc import Iterator

import pytest
from agreement import BackendProcess

from vidfuse.doctor.probe import probe
from vidfuse.video.decoder import installed
from vidfuse.video.workers import DecodePool


@pytest.fixture(scope="session")
def pool() -> Iterator[DecodePool]:
    with DecodePool("auto", workers=1) as pool:
        yield pool


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
