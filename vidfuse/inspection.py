"""Looking at a dataset before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.content import ContentIndex
from vidfuse.data.grouping import listing
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import duplicates_across
from vidfuse.errors import InputError
from vidfuse.features.spec import FeatureConfig
from vidfuse.progress import Reporter
from vidfuse.results import Failure, Inspection, Range
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool

FRAMES = 16
# Size of a clip's features by network (channels of its default layer) and grid.
EXAMPLES = {"thin_resnet": 512, "resnet50": 2048}


def inspect_dataset(
    dataset: Path | str,
    config: FeatureConfig,
    *,
    layout: str | None = None,
    split: str | None = None,
    read: bool = True,
    reporter: Reporter | None = None,
) -> Inspection:
    """Inspect a dataset: what it holds, and what is wrong with it.

    Args:
        dataset: Its folder or manifest.
        config: The decoder, the limits of decoding, and where content hashes are remembered.
        layout: Name of its layout; None finds out.
        split: Number of the official split.
        read: Whether every clip is decoded, to find unreadable ones and lengths.
        reporter: Receives progress updates and collects the time of each stage.

    Returns:
        The report; see ``results.Inspection``.

    Raises:
        UserError: It is not a dataset.
    """
    data = read_dataset(Path(dataset), layout=layout, split=split)
    groups = data.count("group")
    found: dict[str, Any] = {}
    if read:
        with DecodePool(
            config.decoder, config.workers, config.time_limit, memory=config.memory_bytes
        ) as pool:
            found = _read(data, pool, ContentIndex(config.cache_folder), reporter or Reporter())
    return Inspection(
        name=data.name,
        layout=data.layout,
        clips=len(data.clips),
        classes={str(label): n for label, n in sorted(_labels(data).items())},
        unlabelled=data.count("label")[None],
        groups=len(groups) - (None in groups),
        splits={str(part): n for part, n in data.count("split").items() if part},
        split_source=data.split_source,
        problems=[*data.problems, *_indivisible(data)],
        feature_bytes={
            name: {str(g): len(data.clips) * FRAMES * channels * g * g * 2 for g in (1, 2, 4)}
            for name, channels in EXAMPLES.items()
        },
        **found,
    )


def _indivisible(data: Dataset) -> list[str]:
    """Classes that cannot be in training and in a test."""
    labelled = [clip for clip in data.clips if clip.label is not None]
    clips = _labels(data)
    alone = [name for name, count in clips.items() if count == 1]
    problems = []
    if alone:
        problems.append(f"classes with a single clip, which no split can divide: {listing(alone)}")
    groups: dict[str, set[object]] = {}
    for clip in labelled:
        # A clip without a group is one of its own.
        groups.setdefault(str(clip.label), set()).add(clip.group or clip.path)
    single = [name for name in groups if len(groups[name]) == 1 and clips[name] > 1]
    if single:
        problems.append(
            f"classes with a single group, which no split by group can divide: {listing(single)}"
        )
    return problems


def _labels(data: Dataset) -> Counter[str]:
    return Counter({str(k): n for k, n in data.count("label").items() if k is not None})


def _read(
    data: Dataset, pool: DecodePool, index: ContentIndex, reporter: Reporter
) -> dict[str, Any]:
    """Decode every clip once: lengths, sizes, unreadable files, repeated content."""
    unreadable: list[Failure] = []
    frames, seconds, sizes = [], [], Counter[str]()
    warned = 0
    clips = {_request(clip): clip for clip in data.clips}
    reporter.start("Reading clips", len(clips))
    for request, answer in pool.map(clips):
        reporter.advance()
        if isinstance(answer, InputError):
            unreadable.append(Failure(path=clips[request].name, error=answer.reason))
            continue
        frames.append(answer.count)
        seconds.append(answer.end - answer.start)
        sizes[f"{answer.width}x{answer.height}"] += 1
        warned += bool(answer.warnings)
    reporter.finish()
    return {
        "unreadable": unreadable,
        "with_warnings": warned,
        "frames": _range(frames),
        "seconds": _range(seconds),
        "sizes": dict(sizes.most_common(10)),
        "duplicates": _duplicates(data, index),
    }


def _request(clip: Clip) -> FrameRequest:
    return FrameRequest(str(clip.path), "uniform", 1, start=clip.start, end=clip.end, size=32)


def _range(values: list[float] | list[int]) -> Range | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, (0, 50, 100))
    return Range(least=float(low), median=float(middle), most=float(high))


def _duplicates(data: Dataset, index: ContentIndex) -> list[str]:
    """The same content on two sides of the dataset's own split."""
    contents = index.contents(clip.path for clip in data.clips)
    parts: dict[str, list[tuple[Clip, str]]] = {}
    for clip in data.clips:
        content = contents[clip.path]
        if clip.split is not None and not isinstance(content, InputError):
            parts.setdefault(clip.split, []).append((clip, content.digest))
    return duplicates_across(parts)
