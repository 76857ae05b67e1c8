"""Extractors of cheap features, and what the tests of this folder ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.backbones import choose
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.features.extract import Extractor
from vidfuse.features.gather import Gathered
from vidfuse.features.identity import ContentIndex
from vidfuse.features.pile import Pile
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.store import Entry, Store
from vidfuse.features.table import TableBuilder
from vidfuse.progress import Progress
from vidfuse.video.sampling import Sampling

SPEC = FeatureSpec("auto/1", "uniform", 4, 32, "center", "resnet18", "layer1", "random", 2)

# Two ways to the same float32 features (other batches, other shapes) may differ in the last bits
# of float32, which moves a float16 by one step of its 11 bits: 2^-11 of its size at most, and
# pooling a float16 map rounds twice.
TOLERANCE = {"rtol": 2**-9, "atol": 2**-9}


@dataclass
class Heard(Progress):
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    steps: int = 0
    total: int = 0
    finished: int = 0

    def start(self, task: str, total: int) -> None:
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps

    def finish(self) -> None:
        self.finished += 1

    def info(self, text: str) -> None:
        self.infos.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@cache
def network(layer: str) -> Backbone:
    return load_backbone(choose("resnet18", "random", layer))


def extractor(folder: Path | None, spec: FeatureSpec = SPEC, **changes: Any) -> Extractor:
    """An extractor with a fresh tally."""
    options = {
        "spec": spec,
        "backbone": lambda: network(spec.layer),
        "decoder": "auto",
        "store": None if folder is None else Store(folder),
        "index": ContentIndex(folder),
        "workers": 1,
        **changes,
    }
    return Extractor(**options)


def entries(extractor: Extractor, clips: list[Clip]) -> dict[Clip, Entry]:
    """Features of clips that can all be read."""
    found = {}
    for clip, result in extractor.run(clips):
        assert not isinstance(result, InputError), result
        found[clip] = result
    return found


def gathered(
    plain: dict[Clip, Entry], mirrored: dict[Clip, Entry] | None = None, pile: Pile | None = None
) -> Gathered:
    """Features side by side, of which a head reads all frames."""
    frames = max(len(entry.times) for entry in plain.values())
    builder = TableBuilder(Sampling.parse("uniform"), frames, pile or Pile(len(plain)))
    found = Gathered(builder)
    found.add(plain.items())
    found.add((mirrored or {}).items(), mirrored=True)
    found.close()
    return found


def close(one: Entry, other: Entry) -> bool:
    """Whether two entries hold the same features of the same pictures."""
    return np.array_equal(one.times, other.times) and np.allclose(
        one.features.astype(np.float32), other.features.astype(np.float32), **TOLERANCE
    )


def on_grid(grid: Any, **changes: Any) -> FeatureSpec:
    return replace(SPEC, grid=grid, **changes)
