"""Looking after the cache: what is in it, whether it is sound, and removing what is not needed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidfuse.features.cache import DamagedEntryError, Store, load_entry
from vidfuse.features.spec import FeatureSpec
from vidfuse.progress import Reporter

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    modified: float


def cache_info(store: Store) -> dict[str, Any]:
    """Place and size of the cache, and the kinds of features in it."""
    specs = {spec.digest: spec for spec in store.specs()}
    rows: dict[str, dict[str, Any]] = {}
    for file in _files(store):
        digest = file.path.parent.parent.name
        row = rows.setdefault(digest, {"digest": digest, "entries": 0, "bytes": 0, "spec": None})
        row["entries"] += 1
        row["bytes"] += file.size
        if digest in specs:
            row["spec"] = specs[digest].to_dict()
    return {
        "cache": str(store.root),
        "entries": sum(row["entries"] for row in rows.values()),
        "bytes": sum(row["bytes"] for row in rows.values()),
        "free_bytes": store.free_bytes(),
        "specs": sorted(rows.values(), key=lambda row: -row["bytes"]),
    }


def verify(store: Store, reporter: Reporter) -> dict[str, Any]:
    """Read every entry; damaged ones are removed, so that they are computed again."""
    files = list(store.entries())
    damaged = []
    reporter.start("Checking entries", len(files))
    for path in files:
        reporter.advance()
        try:
            load_entry(path)
        except FileNotFoundError:
            continue  # removed meanwhile
        except DamagedEntryError:
            damaged.append(str(path))
            path.unlink(missing_ok=True)
    reporter.finish()
    return {"cache": str(store.root), "entries": len(files), "damaged": damaged}


def prune(
    store: Store,
    *,
    older_than_days: float | None = None,
    max_bytes: int | None = None,
    digests: tuple[str, ...] = (),
    everything: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Remove entries, and always what processes that died left behind.

    Args:
        store: The cache.
        older_than_days: Remove entries written longer ago.
        max_bytes: Remove the oldest entries until the cache is no larger.
        digests: Remove the entries of these specs.
        everything: Remove all entries.
        dry_run: Only say what would be removed.
    """
    files = sorted(_files(store), key=lambda file: file.modified)
    limit = time.time() - older_than_days * DAY if older_than_days is not None else None
    doomed = [
        file
        for file in files
        if everything
        or file.path.parent.parent.name in digests
        or (limit is not None and file.modified < limit)
    ]
    if max_bytes is not None:
        going = set(doomed)
        excess = sum(file.size for file in files if file not in going) - max_bytes
        for file in files:
            if excess <= 0:
                break
            if file not in going:
                doomed.append(file)
                excess -= file.size
    leftovers = list(store.leftovers())
    if not dry_run:
        for path in [*(file.path for file in doomed), *leftovers]:
            path.unlink(missing_ok=True)
        _remove_empty(store)
    return {
        "cache": str(store.root),
        "removed": len(doomed),
        "bytes": sum(file.size for file in doomed),
        "leftovers": len(leftovers),
        "dry_run": dry_run,
    }


def _files(store: Store) -> Iterator[_File]:
    for path in store.entries():
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # removed meanwhile
        yield _File(path, stat.st_size, stat.st_mtime)


def _remove_empty(store: Store) -> None:
    """Remove folders of specs that have no entry left."""
    for folder in store.root.glob("????????????????"):
        if folder.is_dir() and next(folder.glob("??/*"), None) is None:
            shutil.rmtree(folder, ignore_errors=True)


def describe(spec: FeatureSpec) -> str:
    """A spec in a few words."""
    return (
        f"{spec.backbone} {spec.layer}, {spec.frames} frames ({spec.sampling}), "
        f"{spec.size} px {spec.crop}, grid {spec.grid}"
    )
