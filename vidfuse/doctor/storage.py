"""Checks of the feature cache and its disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from vidfuse.doctor.check import Check, Status
from vidfuse.errors import first_sentence, reason_of
from vidfuse.settings import MachineConfig

ELSEWHERE = "Name another place with --cache or VIDFUSE_CACHE."
TOO_LITTLE = 100e6  # bytes; features of a few clips fill this
LITTLE = 2e9  # UCF101 with the default settings takes half of it


def cache(named: str | None = None) -> Check:
    """The feature cache: its folder, its entries, and that more can be written."""
    values: dict[str, object] = {"path": named}
    try:
        from vidfuse.features.cache import Store
        from vidfuse.features.maintenance import cache_info

        folder = MachineConfig(cache=named).cache_folder
        values["path"] = str(folder)
        info = cache_info(Store(folder))
        values |= {"entries": info["entries"], "bytes": info["bytes"]}
        with tempfile.TemporaryFile(dir=_existing(folder)):
            pass
    except ImportError as error:
        summary = f"cannot be looked at ({first_sentence(error)})"
        return Check("cache", "broken", summary, values, "Repair the packages first.")
    except OSError as error:
        summary = f"{values['path']} cannot be written ({reason_of(error)})"
        return Check("cache", "broken", summary, values | {"writable": False}, ELSEWHERE)
    summary = f"{folder}: {info['entries']} entries, {info['bytes'] / 1e6:.1f} MB"
    return Check("cache", "ok", summary, values | {"writable": True})


def disk(named: str | None = None) -> Check:
    """Room on the disk of the cache."""
    try:
        usage = shutil.disk_usage(_existing(MachineConfig(cache=named).cache_folder))
    except OSError as error:
        return Check("disk", "broken", f"no disk ({reason_of(error)})", fix=ELSEWHERE)
    values = {"free_bytes": usage.free, "total_bytes": usage.total}
    summary = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB where the cache is"
    status: Status = "ok"
    if usage.free < LITTLE:
        status = "broken" if usage.free < TOO_LITTLE else "warning"
    fix = f"Make room (vidfuse cache prune --help).\n{ELSEWHERE}" if status != "ok" else None
    return Check("disk", status, summary, values, fix)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists.

    Raises:
        FileNotFoundError: There is not even a disk.
    """
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        if place.exists():
            return place
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
