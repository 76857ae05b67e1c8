from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference_data() -> Callable[[str], Path]:
    """Finds a path in the development data, skipping the test where it is not there."""

    def find(name: str) -> Path:
        folder = os.environ.get("VIDFUSE_TEST_DATA")
        if not folder:
            pytest.skip("VIDFUSE_TEST_DATA is not set")
        path = Path(folder, name)
        if not path.exists():
            pytest.skip(f"{name} is not in VIDFUSE_TEST_DATA")
        return path

    return find
