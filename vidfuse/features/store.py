"""The feature cache: one checked file per clip, shared by any number of processes.

``<cache>/<spec digest>/<2 hex>/<entry key>.safetensors``; the spec lies beside the entries as
``spec.json``. An entry is written under a temporary name and renamed, so that it is whole or
absent; a damaged one is noticed by its checksum when it is read, dropped and computed again.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.errors import UserError
from vidfuse.features.pool import pool
from vidfuse.features.spec import FeatureSpec
from vidfuse.video.sampling import Times

LEFTOVER_SECONDS = 3600  # a temporary file older than this belongs to a process that died


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """How an entry came about.

    Attributes:
        start: Presentation time of the clip's first picture, in seconds.
        end: When its last picture leaves the screen.
        count: How many pictures the clip has.
        width: Width of the pictures as shown, in pixels.
        height: Likewise their height.
        decoder: The decoder that read them.
        mode: Numerical mode of the forward pass.
        path: Where the clip lay.
        warnings: What went wrong without being fatal.
    """

    start: float
    end: float
    count: int
    width: int
    height: int
    decoder: str
    mode: str
    path: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """Features of one clip.

    Attributes:
        features: ``float16 [T, D, g, g]``.
        times: ``[T]`` presentation times in seconds.
        info: How they came about.
    """

    features: NDArray[np.float16]
    times: Times
    info: EntryInfo


class DamagedEntryError(Exception):
    """An entry of the cache is torn or damaged."""


class Store:
    """A feature cache.

    Args:
        root: Its folder; made when the first entry is written.

    Raises:
        UserError: The folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, spec: FeatureSpec, key: str) -> Path:
        """Where an entry lies."""
        return self.root / spec.digest / key[:2] / f"{key}.safetensors"

    def has(self, spec: FeatureSpec, key: str) -> bool:
        """Whether an entry is there, for this grid or a finer one that it nests in."""
        return any(self.path(source, key).exists() for source in spec.sources())

    def read(self, spec: FeatureSpec, key: str) -> Entry | None:
        """An entry, derived from a finer grid if need be; None when there is no sound one.

        Damaged entries that are met on the way are dropped.
        """
        for source in spec.sources():
            path = self.path(source, key)
            try:
                entry = load_entry(path)
            except FileNotFoundError:
                continue
            except DamagedEntryError:
                path.unlink(missing_ok=True)
                continue
            return replace(entry, features=pool(entry.features, spec.grid))
        return None

    def write(self, spec: FeatureSpec, key: str, entry: Entry) -> None:
        """Put an entry in place, whole or not at all.

        Raises:
            UserError: The cache cannot be written, or a feature is too large for float16.
        """
        if not np.isfinite(entry.features).all():
            raise UserError(
                f"features of {entry.info.path} do not fit float16 (or are not finite)",
                "Are these weights sound? Choose another --layer or other --weights.",
            )
        path = self.path(spec, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._describe(spec)
            _write_whole(path, dump_entry(entry))
        except OSError as error:
            raise UserError(
                f"cannot write the feature cache at {self.root} ({error.strerror})",
                "Free some space, or name another place with --cache or VIDFUSE_CACHE.",
            ) from error

    def _describe(self, spec: FeatureSpec) -> None:
        path = self.root / spec.digest / "spec.json"
        if not path.exists():
            _write_whole(path, json.dumps(spec.to_dict(), indent=2).encode() + b"\n")

    def specs(self) -> list[FeatureSpec]:
        """The specs that have a directory here, oldest first."""
        found = []
        for path in sorted(self.root.glob("*/spec.json"), key=lambda path: path.stat().st_mtime):
            try:
                found.append(FeatureSpec.from_dict(json.loads(path.read_text())))
            except (ValueError, TypeError, OSError):
                continue  # of another version, or torn: `entries` still finds its files
        return found

    def entries(self) -> Iterator[Path]:
        """Every entry's file."""
        return self.root.glob("????????????????/??/*.safetensors")

    def leftovers(self) -> Iterator[Path]:
        """Temporary files of processes that died."""
        limit = time.time() - LEFTOVER_SECONDS
        for path in self.root.glob("????????????????/**/*.partial"):
            if path.stat().st_mtime < limit:
                yield path


def dump_entry(entry: Entry) -> bytes:
    """An entry as a safetensors file with a checksum over everything in it."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {
        "features": np.ascontiguousarray(entry.features),
        "times": np.ascontiguousarray(entry.times),
    }
    info = json.dumps(asdict(entry.info))
    return save(tensors, {"info": info, "crc32": _checksum(tensors, info)})


def load_entry(path: Path) -> Entry:
    """Read and check an entry.

    Raises:
        FileNotFoundError: There is none.
        DamagedEntryError: It is torn or damaged.
    """
    from safetensors import safe_open

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(tensors, metadata["info"]) != metadata["crc32"]:
            raise DamagedEntryError(path)
        info = EntryInfo(**json.loads(metadata["info"]))
        return Entry(tensors["features"], tensors["times"], info)
    except FileNotFoundError:
        raise  # another process dropped it meanwhile
    except Exception as error:  # safetensors, JSON and zlib each have their own
        raise DamagedEntryError(path) from error


def _checksum(tensors: dict[str, NDArray[Any]], info: str) -> str:
    value = zlib.crc32(info.encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].tobytes(), zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def _write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name in the same folder, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{token_hex(4)}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
