"""Features of whole videos at even moments, for the cache and for other tools."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.atomic import write_whole
from vidfuse.backbones import Grid
from vidfuse.data.clip import Clip
from vidfuse.data.content import Stamp
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import build_extractor, one_line, summary
from vidfuse.features.dense import (
    LEAST_RATE,
    dense_features,
    dense_spec,
    first_sample,
    new_pool,
    sampled,
    sound_entry,
)
from vidfuse.features.export import ADVICE, folders_of, names_of, without_index, write_index
from vidfuse.features.extract import Extractor
from vidfuse.features.spec import FeatureConfig
from vidfuse.progress import Reporter
from vidfuse.streams import csv_cell
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import even_moments
from vidfuse.video.stretch import Stretch, frame_rate

COLUMNS = ("file", "path", "label", "group", "split", "samples", "first", "rate")
Listed = tuple[list[Stretch], Stamp | None]
Features = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class SampleRate:
    """The rate at which videos are sampled.

    Attributes:
        rate: Samples per second; None where `stride` says it.
        stride: A sample for so many frames, at each video's mean rate of frames.
    """

    rate: float | None = None
    stride: int | None = None

    def of(self, path: Path, stretches: Sequence[Stretch]) -> float:
        """Samples per second of a video.

        Raises:
            InputError: It has no frames to count, or too few for this stride.
        """
        if self.rate is not None:
            return self.rate
        fps = frame_rate(stretches)
        if not (fps and self.stride):
            raise InputError(path, "its frames cannot be counted", "Use --rate instead.")
        rate = round(fps / self.stride, 6)
        if rate < LEAST_RATE:
            reason = f"a sample for {self.stride} frames is less than one in {1 / LEAST_RATE:g} s"
            raise InputError(path, reason, "Choose a smaller --stride.")
        return rate


def extract_videos(
    clips: Sequence[Clip | InputError],
    config: FeatureConfig,
    sampling: SampleRate,
    grids: Sequence[Grid],
    out: Path | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Extract whole videos into the cache, a stretch at a time; see ``api.extract``.

    Args:
        clips: The videos.
        config: The settings.
        sampling: How often they are sampled.
        grids: Sides of the features' grids.
        out: Folder that also gets an array of each video, and ``index.csv``; None is none.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The settings or the machine do not allow it, or parts of videos are asked for.
    """
    for name in ("sampling", "cache_frames"):
        if getattr(config, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is for clips, and not for whole videos", "Leave it out.")
    failures = [item for item in clips if isinstance(item, InputError)]
    videos = list(dict.fromkeys(item for item in clips if isinstance(item, Clip)))
    for error in failures:
        reporter.warn(one_line(error))
    if any(clip.start is not None or clip.end is not None for clip in videos):
        raise UserError(
            "the manifest names parts of videos, and --rate and --stride are for whole ones",
            "Name the videos themselves, or leave out --rate and --stride.",
        )
    folders = folders_of(out, grids)
    names = {} if out is None else names_of(videos, out)
    rows: list[dict[str, Any]] = []
    indices = [without_index(folder) for folder in folders.values()]
    with closing(new_pool(config)) as pool:
        extractors = _extractors(config, grids, reporter)
        for clip in videos:
            try:
                listed = pool.stretches(str(clip.path), config.fps)
                rate = sampling.of(clip.path, listed[0])
                for each in extractors:
                    each.spec = dense_spec(each.spec, rate)
                    parts = _arrays(each, pool, clip.path, rate, listed)
                    if out is None:
                        deque(parts, maxlen=0)
                    else:
                        file = folders[each.spec.grid] / names[clip]
                        write_whole(file, _npy(parts, rate, listed[0]), ADVICE)
            except InputError as error:
                failures.append(error)
                reporter.warn(one_line(error))
            else:
                rows.append(_row(clip, names.get(clip), rate, listed[0]))
    for index in indices:
        write_index(index, COLUMNS, rows)
    report = summary(extractors[0], [each.stats for each in extractors])
    report["failures"] = [{"path": each.path, "error": each.reason} for each in failures]
    report["failed"] = len(failures)
    return {"clips": len(rows) + len(failures), **report, "timings": reporter.timings()}


def _extractors(
    config: FeatureConfig, grids: Sequence[Grid], reporter: Reporter
) -> list[Extractor]:
    """An extractor for each grid; they share the encoder.

    Raises:
        UserError: The encoder sees windows of frames.
    """
    found: list[Extractor] = []
    for grid in grids:
        extractor = build_extractor(config, grid, reporter, found[0].encoder if found else None)
        found.append(replace(extractor, more=[]))
    if found[0].spec.window > 1:
        raise UserError(
            f"{config.backbone} sees windows of frames, and not single ones",
            "Choose an encoder of single frames: vidfuse backbones",
        )
    return found


def _first_and_stop(rate: float, stretches: Sequence[Stretch]) -> tuple[int, int]:
    """The numbers of a video's first sample, and of the one behind its last."""
    found = sampled(rate, stretches)
    count = len(even_moments(rate, found[-1].start, found[-1].end))
    return first_sample(rate, found[0]), first_sample(rate, found[-1]) + count


def _arrays(
    extractor: Extractor, pool: DecodePool, path: Path, rate: float, listed: Listed
) -> Iterator[tuple[int, Features]]:
    """The number of the first sample of each stretch that can be read, and its features.

    Raises:
        InputError: None can.
    """
    error: InputError | None = None
    found = False
    for stretch, entry in dense_features(extractor, pool, path, listed):
        if isinstance(entry, InputError):
            error = entry
        sound = sound_entry(path, stretch, entry, extractor.reporter)
        if sound is not None:
            found = True
            yield first_sample(rate, stretch), sound.features
    if error is not None and not found:
        raise error


def _npy(
    parts: Iterator[tuple[int, Features]], rate: float, stretches: Sequence[Stretch]
) -> Iterator[bytes]:
    """The bytes of a ``.npy`` file, ``float32 [N, D]`` or ``[N, D, g, g]``, part by part.

    Samples that could not be read are not numbers.
    """
    begin, stop = _first_and_stop(rate, stretches)
    shape: tuple[int, ...] = ()
    at = begin  # the next sample to be written

    def missing(count: int) -> bytes:
        return np.full((count, *shape), np.nan, np.float32).tobytes()

    for first, features in parts:
        if features.shape[-2:] == (1, 1):
            features = features[:, :, 0, 0]
        if not shape:
            shape = features.shape[1:]
            header = io.BytesIO()
            whole = {"descr": "<f4", "fortran_order": False, "shape": (stop - begin, *shape)}
            np.lib.format.write_array_header_1_0(header, whole)
            yield header.getvalue()
        if first > at:
            yield missing(first - at)
        yield np.asarray(features, "<f4").tobytes()
        at = first + len(features)
    yield missing(stop - at)


def _row(clip: Clip, file: str | None, rate: float, stretches: Sequence[Stretch]) -> dict[str, Any]:
    first, stop = _first_and_stop(rate, stretches)
    begin = sampled(rate, stretches)[0]
    cells = {
        "file": file,
        "path": clip.path,
        "label": clip.label,
        "group": clip.group,
        "split": clip.split,
        "samples": stop - first,
        "first": f"{even_moments(rate, begin.start, begin.end)[0]:.6f}",
        "rate": f"{rate:.10g}",
    }
    return {column: csv_cell(value) for column, value in cells.items()}
