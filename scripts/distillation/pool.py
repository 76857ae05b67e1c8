"""The pool of views with the teachers' answers, kept on disk in shards so that work resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scripts.distillation.material import Pixels
from scripts.distillation.teachers import Teachers
from scripts.distillation.views import Zoom, mix, random_view, smaller

SHARD = 2000
BATCH = 50
STILL_SHARE = 0.65  # of the views are of still images
TARGETS = ("resnet18", "squeezenet", "mobilenet", "hint", "logits")


class Views(Dataset[Pixels]):
    """Random views; the n-th is the same in every run.

    Args:
        stills: Still images.
        frames: Frames of videos.
        zoom: How near they are.
        seed: Decides everything.
    """

    def __init__(
        self, stills: Sequence[Pixels], frames: Sequence[Pixels], zoom: Zoom, seed: int
    ) -> None:
        self.stills, self.frames, self.zoom, self.seed = stills, frames, zoom, seed

    def __getitem__(self, number: int) -> Pixels:
        rng = np.random.default_rng((self.seed, number))
        source = self.stills if rng.random() < STILL_SHARE else self.frames
        return random_view(source[int(rng.integers(len(source)))], self.zoom, rng)


def make_shard(folder: Path, number: int, views: Views, teachers: Teachers) -> None:
    """Write one shard, a folder of frames and the teachers' answers, unless it exists."""
    place = folder / f"shard{number:03d}"
    if place.exists():
        return
    numbers = range(number * SHARD, (number + 1) * SHARD)

    def gather(items: list[Pixels]) -> np.ndarray:
        return np.stack(items)

    loader = DataLoader(
        views, BATCH, sampler=list(numbers), num_workers=1, collate_fn=gather, prefetch_factor=4
    )
    rng = np.random.default_rng((views.seed, number, 1))
    pixels: list[np.ndarray] = []
    answers: dict[str, list[np.ndarray]] = {name: [] for name in TARGETS}
    for batch in loader:
        mixed = mix(batch, rng)
        pixels.append(np.stack([smaller(view) for view in mixed]))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            said = teachers(torch.from_numpy(mixed))
        for name in TARGETS:
            answers[name].append(said[name].float().numpy().astype(np.float16))
    unfinished = folder / f"shard{number:03d}.part"
    unfinished.mkdir(parents=True, exist_ok=True)
    np.save(unfinished / "frames.npy", np.concatenate(pixels))
    for name in TARGETS:
        np.save(unfinished / f"{name}.npy", np.concatenate(answers[name]))
    unfinished.rename(place)


class ViewPool:
    """Shards that are ready, read by row without loading them.

    Args:
        folder: Where the shards lie.
        first: The pool whose statistics are used; None is this one. A student that goes on with
            another pool needs the units it began with.

    Attributes:
        size: How many views there are.
        statistics: Mean and spread of each teacher's channels.
    """

    def __init__(self, folder: Path, first: ViewPool | None = None) -> None:
        self.shards = [
            {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in ("frames", *TARGETS)}
            for place in sorted(folder.glob("shard???"))
        ]
        self.size = len(self.shards) * SHARD
        self.statistics: dict[str, dict[str, Tensor]] = (
            first.statistics if first else _statistics(folder, self.shards[:3])
        )

    def rows(self, numbers: np.ndarray) -> dict[str, Tensor]:
        """Frames ``uint8 [B, 128, 128, 3]`` and the teachers' answers (float16) of some views."""
        numbers = np.sort(numbers)
        found: dict[str, Tensor] = {}
        for name in ("frames", *TARGETS):
            parts = [
                self.shards[shard][name][numbers[numbers // SHARD == shard] % SHARD]
                for shard in np.unique(numbers // SHARD)
            ]
            found[name] = torch.from_numpy(np.concatenate(parts))
        return found


def _statistics(folder: Path, shards: list[dict[str, np.ndarray]]) -> dict[str, dict[str, Tensor]]:
    """Mean and standard deviation of each channel, of maps and of their averages."""
    path = folder / "statistics.json"
    if not path.exists():
        found = {}
        for name in TARGETS[:-1]:
            maps = np.concatenate([shard[name] for shard in shards]).astype(np.float32)
            pooled = maps.mean((2, 3))
            found[name] = {
                "mean": maps.mean((0, 2, 3)).tolist(),
                "map_std": (maps.std((0, 2, 3)) + 1e-3).tolist(),
                "pooled_std": (pooled.std(0) + 1e-3).tolist(),
            }
        path.write_text(json.dumps(found))
    read = json.loads(path.read_text())
    return {
        name: {key: torch.tensor(values) for key, values in each.items()}
        for name, each in read.items()
    }
