"""Filling the cache for later use, and writing features for other tools."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features.config import FeatureConfig
from vidfuse.features.extract import Result
from vidfuse.features.setup import Setup, one_line, summary
from vidfuse.features.spec import Grid
from vidfuse.features.store import Entry
from vidfuse.progress import Progress
from vidfuse.timing import Timings

COLUMNS = ("file", "path", "label", "group", "split", "start", "end", "frames", "times")


def extract_clips(
    clips: list[Clip | InputError],
    config: FeatureConfig,
    grids: list[Grid],
    out: Path | None,
    progress: Progress,
    timings: Timings,
) -> dict[str, Any]:
    """Extract clips into the cache; see ``api.extract``."""
    bad = [item for item in clips if isinstance(item, InputError)]
    good = list(dict.fromkeys(item for item in clips if isinstance(item, Clip)))
    for error in bad:
        progress.warn(one_line(error))
    setup = Setup(config, timings, progress)
    specs = [setup.spec(grid) for grid in grids]
    extractors = [setup.extractor(spec) for spec in specs]
    for extractor in extractors:
        results = extractor.run(good, read=out is not None)
        entries = _sound(results, progress)
        if out is None:
            deque(entries, maxlen=0)
        else:
            _write(entries, good, out if len(grids) == 1 else out / f"grid{extractor.spec.grid}")
    report = summary(specs[0], setup.store, [extractor.tally for extractor in extractors])
    report["failures"] = [{"path": e.path, "error": e.reason} for e in bad] + report["failures"]
    report["failed"] = len(report["failures"])
    return {"clips": len(good) + len(bad), **report, "timings": timings.to_dict()}


def _sound(
    results: Iterable[tuple[Clip, Result]], progress: Progress
) -> Iterator[tuple[Clip, Entry]]:
    """The entries among the results; of the others, a warning."""
    for clip, result in results:
        if isinstance(result, InputError):
            progress.warn(one_line(result))
        else:
            yield clip, result


def _write(entries: Iterable[tuple[Clip, Entry]], clips: list[Clip], folder: Path) -> None:
    """One ``.npy`` per clip, ``float32 [T, D]`` or ``[T, D, g, g]``, and ``index.csv``.

    Raises:
        UserError: The folder cannot be written.
    """
    names = _names(clips)
    rows: dict[Clip, dict[str, Any]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside other arrays that an earlier index names, or half of these, it would be wrong.
        (folder / "index.csv").unlink(missing_ok=True)
        for clip, entry in entries:
            np.save(folder / names[clip], _array(entry))
            rows[clip] = _row(clip, names[clip], entry)
        with (folder / "index.csv").open("w", newline="", encoding="utf-8", errors="replace") as f:
            writer = csv.DictWriter(f, COLUMNS)
            writer.writeheader()
            writer.writerows(rows[clip] for clip in clips if clip in rows)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror})", "Check --out.") from error


def _array(entry: Entry) -> np.ndarray[Any, Any]:
    features = entry.features.astype(np.float32)
    return features[:, :, 0, 0] if features.shape[-2:] == (1, 1) else features


def _row(clip: Clip, name: str, entry: Entry) -> dict[str, Any]:
    return {
        "file": name,
        "path": clip.path,
        "label": clip.label,
        "group": clip.group,
        "split": clip.split,
        "start": clip.start,
        "end": clip.end,
        "frames": len(entry.times),
        "times": " ".join(f"{time:.3f}" for time in entry.times),
    }


def _names(clips: list[Clip]) -> dict[Clip, str]:
    """A file name for each clip: its stem, numbered where several share one."""
    names: dict[Clip, str] = {}
    used: Counter[str] = Counter()
    for clip in clips:
        segment = "" if clip.start is None and clip.end is None else f"_{clip.start or 0:g}"
        if clip.end is not None:
            segment += f"-{clip.end:g}"
        stem = re.sub(r"[^\w.+-]", "_", clip.path.stem + segment, flags=re.ASCII) or "clip"
        used[stem.lower()] += 1
        number = used[stem.lower()]
        names[clip] = f"{stem}.npy" if number == 1 else f"{stem}~{number}.npy"
    return names
