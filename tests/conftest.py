"""What all tests share: a clean place to run in, the development data, tiny clips."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

MakeClip = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    # Not beside the code, of which it also keeps the paths.
    storage = config.rootpath / ".pytest_cache" / "hypothesis"
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(storage))
    # Also for the processes that tests start: two tests side by side must not fight for cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if folder := os.environ.get("VIDFUSE_TEST_DATA"):
        os.environ["VIDFUSE_TEST_DATA"] = os.path.abspath(folder)  # tests run in other folders


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home, a cache and a working folder of the test's own, beside its ``tmp_path``."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    home, work = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    for name in [name for name in os.environ if name.startswith("VIDFUSE_")]:
        if name != "VIDFUSE_TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setenv("VIDFUSE_CACHE", str(home / "features"))
    monkeypatch.chdir(work)


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


def write_clip(path: Path, *, seed: int = 0, frames: int = 12, fps: int = 10) -> Path:
    """A clip of 48x32 pixels, losslessly compressed: a square that wanders over a pattern."""
    import av

    rng = np.random.default_rng(seed)
    background = rng.integers(0, 255, (4, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    start, step = rng.integers(0, 24, 2), rng.integers(1, 4, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        stream.options = {"threads": "1"}
        for i in range(frames):
            image = background.copy()
            y, x = (start + i * step) % (24, 40)
            image[y : y + 8, x : x + 8] = 255 - 10 * (seed % 20)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Writes a tiny clip: ``make_clip("name.mkv", seed=0, frames=12)``."""

    def make(name: str | Path = "clip.mkv", **options: int) -> Path:
        return write_clip(tmp_path / "clips" / name, **options)

    return make


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 3 x 8 tiny clips. Tests that change it work on a copy."""
    root = tmp_path_factory.mktemp("data") / "moves"
    for seed in range(24):
        write_clip(root / f"class{seed % 3}" / f"v{seed:02}.mkv", seed=seed, frames=6 + seed % 5)
    return root


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A feature cache for tests that do not look at it."""
    return str(tmp_path_factory.mktemp("features"))
