"""The feature cache: one checked file per clip, shared by any number of processes.

``<cache>/<spec digest>/<2 hex>/<entry key>.safetensors``; the spec lies beside the entries as
``spec.json``. An entry is written under a temporary name and renamed, so that it is whole or
absent; a damaged one is noticed by its checksum when it is read, dropped and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from vidfuse.atomic import write_whole
from vidfuse.backbones.grid import pool
from vidfuse.data.clip import Clip
from vidfuse.errors import UnwritableError, UserError, reason_of
from vidfuse.features.spec import FeatureSpec
from vidfuse.progress import Reporter
from vidfuse.video.sampling import Times
from vidfuse.video.view import View

ADVICE = (
    "Check that it has room and may be written, or name another place with --cache or\n"
    "VIDFUSE_CACHE. What it holds already is kept."
)
LEFTOVER_SECONDS = 3600  # a temporary file older than this belongs to a process that died


def entry_key(content: str, clip: Clip, mirrored: bool = False, view: View | None = None) -> str:
    """Name of a clip's entry in the cache: its content, segment and view, not its path.

    A view is named by its parameters, so one that is drawn otherwise has an entry of its own.
    """
    text = f"{content} {clip.start or 0:.6f} {'end' if clip.end is None else f'{clip.end:.6f}'}"
    if mirrored:
        text += " mirrored"
    if view is not None:
        text += f" {json.dumps(view.to_dict())}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """Origin of an entry: its clip, and how it was decoded and encoded.

    Attributes:
        start: Presentation time of the clip's first frame, in seconds.
        end: When its last frame leaves the screen.
        count: How many frames the clip has.
        width: Width of the frames as shown, in pixels.
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


@dataclass
class Store:
    """A feature cache.

    Attributes:
        root: Its folder; made when the first entry is written.
        forgiving: Is warned, once, where entries cannot be written, as where the cache is somebody
            else's; None makes an error of that.
    """

    root: Path
    forgiving: Reporter | None = None
    _closed: bool = False

    def path(self, spec: FeatureSpec, key: str) -> Path:
        """Path of an entry."""
        return self.root / spec.digest / key[:2] / f"{key}.safetensors"

    def has(self, spec: FeatureSpec, key: str) -> bool:
        """True if an entry is there, for this grid or a finer one that it nests in."""
        return any(self.path(source, key).exists() for source in spec.sources)

    def read(self, spec: FeatureSpec, key: str, reporter: Reporter | None = None) -> Entry | None:
        """An entry, derived from a finer grid if need be; None when there is no sound one.

        Args:
            spec: What its features mean.
            key: Which clip.
            reporter: Receives progress updates and collects the time of each stage.

        Raises:
            UserError: The cache cannot be read.
        """
        for source in spec.sources:
            path = self.path(source, key)
            try:
                if not path.exists():
                    continue
                entry = load_entry(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except DamagedEntryError:
                (reporter or Reporter()).warn(f"dropped a damaged entry of the cache: {path}")
                with suppress(OSError):
                    path.unlink()  # a cache that is not ours to clean is still ours to distrust
                continue
            except OSError as error:
                raise UserError(
                    f"cannot read the feature cache at {self.root} ({reason_of(error)})", ADVICE
                ) from error
            return replace(entry, features=pool(entry.features, spec.grid))
        return None

    def write(self, spec: FeatureSpec, key: str, entry: Entry) -> None:
        """Put an entry in place, whole or not at all.

        Raises:
            UnwritableError: The cache cannot be written, and nobody forgives that.
        """
        if self._closed:
            return
        path = self.path(spec, key)
        words = self.root / spec.digest / "spec.json"
        try:
            if not os.path.exists(words):
                write_whole(words, json.dumps(spec.to_dict(), indent=2) + "\n", ADVICE)
            write_whole(path, dump_entry(entry, f"{spec.digest}/{key}"), ADVICE)
        except UnwritableError as error:
            if self.forgiving is None:
                raise
            self._closed = True
            self.forgiving.warn(f"{error.message}: what is computed is not kept in the cache")

    def free_bytes(self) -> int:
        """Room on the disk where the cache lies or will lie."""
        place = self.root
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def specs(self) -> list[FeatureSpec]:
        """The specs that have a directory here, oldest first."""
        found = []
        for path in self.root.glob("*/spec.json"):
            try:
                spec = FeatureSpec.from_dict(json.loads(path.read_text(encoding="utf-8")))
                found.append((path.stat().st_mtime, spec))
            except (ValueError, TypeError, AttributeError, OSError):
                continue  # of another version, or torn: `entries` still finds its files
        return [spec for _, spec in sorted(found, key=lambda pair: pair[0])]

    def entries(self) -> Iterator[Path]:
        """Every entry's file."""
        return self.root.glob("????????????????/??/*.safetensors")

    def leftovers(self) -> Iterator[Path]:
        """Temporary files of processes that died."""
        limit = time.time() - LEFTOVER_SECONDS
        for path in self.root.glob("????????????????/**/*.partial"):
            with suppress(FileNotFoundError):  # put in place meanwhile
                if path.stat().st_mtime < limit:
                    yield path


def dump_entry(entry: Entry, identity: str) -> bytes:
    """An entry as a safetensors file, with a checksum over all in it and over its identity.

    Args:
        entry: What is written.
        identity: Digest of its spec, a slash, and its key.
    """
    tensors: dict[str, NDArray[Any]] = {
        "features": np.ascontiguousarray(entry.features),
        "times": np.ascontiguousarray(entry.times),
    }
    info = json.dumps(asdict(entry.info))
    return save(tensors, {"info": info, "crc32": _checksum(tensors, info, identity)})


def load_entry(path: Path) -> Entry:
    """Read and check an entry.

    Raises:
        FileNotFoundError: There is none.
        DamagedEntryError: It is torn or damaged, or the entry of another clip or spec.
        OSError: It cannot be read, whatever it holds.
    """
    content = path.read_bytes()
    try:
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        tensors = load(content)
        # An entry in another's place is a damaged one.
        identity = f"{path.parent.parent.name}/{path.stem}"
        if metadata["crc32"] != _checksum(tensors, metadata["info"], identity):
            raise DamagedEntryError(path)
        return Entry(
            tensors["features"], tensors["times"], EntryInfo(**json.loads(metadata["info"]))
        )
    except MemoryError:
        raise
    except Exception as error:  # safetensors and JSON each have their own
        raise DamagedEntryError(path) from error


def _checksum(tensors: dict[str, NDArray[Any]], info: str, identity: str) -> str:
    value = zlib.crc32(f"{identity}\n{info}".encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(tensor).data, value)
    return f"{value:08x}"
