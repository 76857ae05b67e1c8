"""The settings of feature extraction. Imports no torch, so that a command line can show them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vidfuse.backbones import BACKBONES, DEFAULT_BACKBONE, PRECISION_HELP, PRECISIONS
from vidfuse.errors import UserError
from vidfuse.features.spec import Grid, parse_grid
from vidfuse.settings import MOST_WORKERS, Settings, option, parse_size
from vidfuse.video.decoder import POLICIES
from vidfuse.video.frames import CROPS, DEFAULT_FPS
from vidfuse.video.sampling import Sampling


@dataclass
class FeatureConfig(Settings):
    """What is extracted from clips, and how."""

    backbone: str = option(
        DEFAULT_BACKBONE, "Network that turns pictures into features.", choices=tuple(BACKBONES)
    )
    weights: str | None = option(
        None, "Its weights: a .safetensors or .pth file, or 'random'.", unset="the published ones"
    )
    layer: str | None = option(
        None, "Layer where features leave it, such as layer3.", unset="its last map"
    )
    grid: str | None = option(
        None,
        "Cells a side of the map that is kept of each frame: 1 (average), 2, 4, ... or native.",
        unset="what the head reads",
    )
    frames: int = option(16, "Frames that a head reads of a clip.", min=1, max=4096)
    cache_frames: int | None = option(
        None,
        "Frames cached for temporal jitter in training: an odd multiple of --frames.",
        unset="--frames, with --sampling segment three times as many",
        min=1,
        max=2**16,
    )
    sampling: str | None = option(
        None,
        "Which frames: uniform, segment (jittered in training), dense, or stride:N.",
        unset="uniform, segment when --cache-frames asks for more",
    )
    size: int | None = option(
        None,
        "Side of the pictures given to the backbone.",
        unset="what it was trained on",
        min=16,
        max=2048,
    )
    crop: str = option(
        "center",
        "How a picture becomes a square: center (cuts), pad (bars) or squash.",
        choices=CROPS,
    )
    fps: float = option(
        DEFAULT_FPS, "Pictures per second of clips stored as frame folders.", above=0, max=1000
    )
    decoder: str = option("auto", "Program that reads videos.", choices=tuple(POLICIES))
    workers: int | None = option(
        None,
        "Clips decoded at once.",
        unset="one per core",
        min=1,
        max=MOST_WORKERS,
        affects_result=False,
    )
    time_limit: float | None = option(
        None,
        "Seconds that decoding a clip may take.",
        unset="120 and more for big files",
        above=0,
        affects_result=False,
    )
    memory: str | None = option(
        None,
        "Memory that decoding a clip may take, such as 2G.",
        unset="half of the machine's divided by --workers, 1G to 4G",
        least_size="100M",
        affects_result=False,
    )
    device: str = option(
        "auto", "Where to compute: auto, cpu, cuda, cuda:1, mps, ...", affects_result=False
    )
    precision: str = option("auto", PRECISION_HELP, choices=PRECISIONS, affects_result=False)
    cache: str | None = option(
        None, "Folder of the feature cache.", unset="the platform's", affects_result=False
    )
    max_failed: float = option(
        0.05,
        "Share of clips that may fail to be read before the run counts as failed.",
        min=0,
        max=1,
        affects_result=False,
    )

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each."""
        found = super().problems()
        for name, property_ in (("grid", "chosen_grid"), ("sampling", "rule")):
            if any(problem.startswith(f"{name}:") for problem in found):
                continue
            try:
                getattr(self, property_)
            except UserError as error:
                found.append(f"{name}: {error.message}")
        if not found:
            found += self._frame_problems()
        return found

    def _frame_problems(self) -> list[str]:
        cached = self.cached_frames
        if cached == self.frames:
            return []
        if self.rule.mode != "segment":
            return [f"cache_frames: more than frames needs --sampling segment, not {self.sampling}"]
        if cached % self.frames or cached // self.frames % 2 == 0:
            odd = self.frames * 3
            return [
                f"cache_frames: {cached} is not an odd multiple of {self.frames} frames, "
                f"such as {odd}, so the frames that prediction uses would not be among them"
            ]
        return []

    @property
    def chosen_grid(self) -> Grid | None:
        """The grid that was asked for; None leaves it to the head."""
        return None if self.grid is None else parse_grid(self.grid)

    @property
    def rule(self) -> Sampling:
        """The sampling rule."""
        more = self.cache_frames is not None and self.cache_frames != self.frames
        return Sampling.parse(self.sampling or ("segment" if more else "uniform"))

    @property
    def cached_frames(self) -> int:
        """How many frames of a clip are kept in the cache."""
        if self.cache_frames is not None:
            return self.cache_frames
        return 3 * self.frames if self.rule.mode == "segment" else self.frames

    @property
    def memory_bytes(self) -> int | None:
        """What decoding a clip may take; None leaves it to the machine."""
        return None if self.memory is None else parse_size(self.memory)

    @property
    def cache_folder(self) -> Path:
        """Where features are kept: ``--cache``, ``VIDFUSE_CACHE`` or the platform's place."""
        return cache_folder(self.cache)


def cache_folder(named: str | None = None) -> Path:
    """The feature cache's folder: as named, ``VIDFUSE_CACHE``, or the platform's place."""
    chosen = named or os.environ.get("VIDFUSE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("vidfuse", appauthor=False) / "features"
