"""Decode processes that the tests of this folder share."""

from collections.abc import Iterator

import pytest
from agreement import DecordProcess

from vidfuse.video.decoder import installed
from vidfuse.video.workers import DecodePool


@pytest.fixture(scope="session")
def pool() -> Iterator[DecodePool]:
    with DecodePool("auto", workers=1) as pool:
        yield pool


@pytest.fixture(scope="session")
def decord_process() -> Iterator[DecordProcess]:
    if not installed("decord"):
        pytest.skip("decord has no wheel for this machine")
    process = DecordProcess()
    yield process
    process.close()
