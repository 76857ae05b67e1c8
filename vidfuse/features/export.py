"""Filling the cache for later use, and writing features for other tools."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.atomic import make_writable, write_whole, writing
from vidfuse.backbones import Grid
from vidfuse.data.clip import Clip
from vidfuse.data.file_names import FileNames
from vidfuse.errors import InputError
from vidfuse.features.build import build_extractor, one_line, print_warnings, summary
from vidfuse.features.cache import Entry
from vidfuse.features.extract import Extractor, Result
from vidfuse.features.spec import FeatureConfig
from vidfuse.progress import Reporter
from vidfuse.streams import csv_cell

ADVICE = "Check that the disk has room, or name a folder that you can write with --out."
COLUMNS = ("file", "path", "label", "group", "split", "start", "end", "frames", "times")


def extract_clips(
    clips: list[Clip | InputError],
    config: FeatureConfig,
    grids: list[Grid],
    out: Path | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Extract clips into the cache; see ``api.extract``."""
    bad = [item for item in clips if isinstance(item, InputError)]
    good = list(dict.fromkeys(item for item in clips if isinstance(item, Clip)))
    for error in bad:
        reporter.warn(one_line(error))
    folders = folders_of(out, grids)
    extractors: list[Extractor] = []
    for grid in grids:
        encoder = extractors[0].encoder if extractors else None  # one backbone for all grids
        extractors.append(build_extractor(config, grid, reporter, encoder))
    for extractor in extractors:
        results = extractor.run(good, read=out is not None)
        entries = _sound(results, reporter)
        if folders:
            _write(entries, good, folders[extractor.spec.grid])
        else:
            deque(entries, maxlen=0)
    report = summary(extractors[0], [extractor.stats for extractor in extractors])
    report["failures"] = [{"path": e.path, "error": e.reason} for e in bad] + report["failures"]
    report["failed"] = len(report["failures"])
    return {"clips": len(good) + len(bad), **report, "timings": reporter.timings()}


def folders_of(out: Path | None, grids: Sequence[Grid]) -> dict[Grid, Path]:
    """Folders for the features on each grid, checked to be writable before the work."""
    if out is None:
        return {}
    folders = {grid: out if len(grids) == 1 else out / f"grid{grid}" for grid in grids}
    for folder in folders.values():
        make_writable(folder, ADVICE)
    return folders


def _sound(
    results: Iterable[tuple[Clip, Result]], reporter: Reporter
) -> Iterator[tuple[Clip, Entry]]:
    """The entries among the results; of the others, a warning."""
    warned = []
    for clip, result in results:
        if isinstance(result, InputError):
            reporter.warn(one_line(result))
        else:
            warned.append((clip, result.info.warnings))
            yield clip, result
    print_warnings(warned, reporter)


def _write(entries: Iterable[tuple[Clip, Entry]], clips: list[Clip], folder: Path) -> None:
    """One ``.npy`` per clip, ``float32 [T, D]`` or ``[T, D, g, g]``, and ``index.csv``.

    Raises:
        UnwritableError: The folder cannot be written.
    """
    names = names_of(clips, folder)
    rows: dict[Clip, dict[str, Any]] = {}
    index = without_index(folder)
    for clip, entry in entries:
        content = io.BytesIO()
        np.save(content, _array(entry))
        write_whole(folder / names[clip], content.getvalue(), ADVICE)
        rows[clip] = _row(clip, names[clip], entry)
    write_index(index, COLUMNS, (rows[clip] for clip in clips if clip in rows))


def without_index(folder: Path) -> Path:
    """The file of a folder's index, which is not there any more: it names other arrays, or would
    name half of those that come.

    Raises:
        UnwritableError: It cannot be removed.
    """
    index = folder / "index.csv"
    with writing(index, ADVICE):
        index.unlink(missing_ok=True)
    return index


def write_index(index: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write the table of the arrays in a folder.

    Raises:
        UnwritableError: It cannot be written.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    # Names of files need not be Unicode.
    write_whole(index, table.getvalue().encode(errors="replace"), ADVICE)


def _array(entry: Entry) -> np.ndarray[Any, Any]:
    features = entry.features.astype(np.float32)
    return features[:, :, 0, 0] if features.shape[-2:] == (1, 1) else features


def _row(clip: Clip, name: str, entry: Entry) -> dict[str, Any]:
    cells = {
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
    return {column: csv_cell(value) for column, value in cells.items()}


def names_of(clips: list[Clip], folder: Path) -> dict[Clip, str]:
    """A file name for each clip: its stem, numbered where several share one."""
    files = FileNames(folder, ".npy")
    names: dict[Clip, str] = {}
    for clip in clips:
        segment = "" if clip.start is None and clip.end is None else f"_{clip.start or 0:g}"
        if clip.end is not None:
            segment += f"-{clip.end:g}"
        # Neither another system's separator, nor what a spreadsheet takes for a formula.
        stem = re.sub(r"[^\w.+-]|^[+-]", "_", clip.path.stem, flags=re.ASCII) or "clip"
        names[clip] = files.free(stem, segment)
    return names
