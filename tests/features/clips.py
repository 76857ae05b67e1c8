"""Extractors of cheap features, and what the tests of this folder ask of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.backbones import choose
from vidfuse.backbones.engine import TorchEngine
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.data.clip import Clip
from vidfuse.data.content import ContentIndex
from vidfuse.errors import InputError
from vidfuse.features.cache import Entry, Store
from vidfuse.features.encode import Encoder
from vidfuse.features.extract import Extractor
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.table import FeatureBuffer, FeatureTable, Kind, build_table
from vidfuse.video.sampling import Sampling

SPEC = FeatureSpec("auto/1", "uniform", 4, 32, "center", "resnet18", "layer1", "random", 2)

# Two ways to the same float32 features (other batches, other shapes) may differ in the last bits
# of float32, which moves a float16 by one step of its 11 bits: 2^-11 of its size at most, and
# pooling a float16 map rounds twice.
TOLERANCE: dict[str, Any] = {"rtol": 2**-9, "atol": 2**-9}


@cache
def network(layer: str) -> Backbone:
    return load_backbone(choose("resnet18", "random", layer))


def extractor(folder: Path | None, spec: FeatureSpec = SPEC, **changes: Any) -> Extractor:
    """An extractor with fresh statistics; ``backbone`` builds its network."""
    build = changes.pop("backbone", lambda: network(spec.layer))
    precision = changes.pop("precision", "auto")
    options = {
        "spec": spec,
        "encoder": Encoder(lambda: TorchEngine(build(), precision, spec.network)),
        "decoder": "auto",
        "store": None if folder is None else Store(folder),
        "index": ContentIndex(folder),
        "workers": 1,
        "more": spec.sources[1:2] if changes.pop("more", False) and spec.grid == 1 else [],
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
    plain: dict[Clip, Entry],
    mirrored: dict[Clip, Entry] | None = None,
    pile: FeatureBuffer | None = None,
) -> FeatureTable:
    """Features side by side, of which a head reads all frames."""
    frames = max(len(entry.times) for entry in plain.values())
    entries: list[tuple[Clip, Kind, Entry]]
    entries = [(clip, "plain", entry) for clip, entry in plain.items()]
    entries += [(clip, "mirrored", entry) for clip, entry in (mirrored or {}).items()]
    buffer = pile or FeatureBuffer(len(plain))
    return build_table(entries, Sampling.parse("uniform"), frames, buffer)


def close(one: Entry, other: Entry) -> bool:
    """Whether two entries hold the same features of the same frames."""
    return np.array_equal(one.times, other.times) and np.allclose(
        one.features.astype(np.float32), other.features.astype(np.float32), **TOLERANCE
    )


def on_grid(grid: Any, **changes: Any) -> FeatureSpec:
    return replace(SPEC, grid=grid, **changes)
