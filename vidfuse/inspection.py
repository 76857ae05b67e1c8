"""Looking at a dataset before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import duplicates_across
from vidfuse.data.units import listing
from vidfuse.errors import InputError
from vidfuse.features.identity import ContentIndex
from vidfuse.progress import Progress
from vidfuse.video.frames import FrameRequest
from vidfuse.video.workers import DecodePool

FRAMES = 16
# Size of a clip's features by network (channels of its default layer) and grid.
EXAMPLES = {"thin_resnet": 512, "resnet50": 2048}


def inspect_dataset(
    dataset: Path | str,
    *,
    layout: str | None = None,
    split: str | None = None,
    read: bool = True,
    decoder: str = "auto",
    workers: int | None = None,
    time_limit: float | None = None,
    memory: int | None = None,
    index: ContentIndex | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say what a dataset holds, and what is wrong with it.

    Args:
        dataset: Its folder or manifest.
        layout: Name of its layout; None finds out.
        split: Number of the official split.
        read: Whether every clip is decoded, to find unreadable ones and lengths.
        decoder: Name of the decode policy.
        workers: Clips decoded at once.
        time_limit: Seconds that decoding a clip may take.
        memory: Bytes that decoding a clip may take.
        index: Remembers content hashes.
        progress: Hears of progress.

    Returns:
        A report ready for JSON.

    Raises:
        UserError: It is not a dataset.
    """
    progress = progress or Progress()
    data = read_dataset(Path(dataset), layout=layout, split=split)
    groups = data.count("group")
    report: dict[str, Any] = {
        "name": data.name,
        "layout": data.layout,
        "clips": len(data.clips),
        "classes": {str(label): n for label, n in sorted(_labels(data).items())},
        "unlabelled": data.count("label")[None],
        "groups": len(groups) - (None in groups),
        "splits": {str(part): n for part, n in data.count("split").items() if part},
        "split_source": data.split_source,
        "problems": [*data.problems, *_indivisible(data)],
        "feature_bytes": {
            name: {str(g): len(data.clips) * FRAMES * channels * g * g * 2 for g in (1, 2, 4)}
            for name, channels in EXAMPLES.items()
        },
    }
    if read:
        with DecodePool(decoder, workers, time_limit, memory=memory) as pool:
            report |= _read(data, pool, index or ContentIndex(None), progress)
    return report


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
    data: Dataset, pool: DecodePool, index: ContentIndex, progress: Progress
) -> dict[str, Any]:
    """Decode every clip once: lengths, sizes, unreadable files, repeated content."""
    unreadable: list[dict[str, str]] = []
    frames, seconds, sizes = [], [], Counter[str]()
    warned = 0
    progress.start("Reading clips", len(data.clips))
    requests = {id(r): (r, clip) for r, clip in ((_request(c), c) for c in data.clips)}
    for request, answer in pool.map(r for r, _ in requests.values()):
        progress.advance()
        if isinstance(answer, InputError):
            clip = requests[id(request)][1]
            unreadable.append({"path": clip.name, "error": answer.reason})
            continue
        frames.append(answer.count)
        seconds.append(answer.end - answer.start)
        sizes[f"{answer.width}x{answer.height}"] += 1
        warned += bool(answer.warnings)
    progress.finish()
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


def _range(values: list[float] | list[int]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, (0, 50, 100))
    return {"least": float(low), "median": float(middle), "most": float(high)}


def _duplicates(data: Dataset, index: ContentIndex) -> list[str]:
    """The same content on two sides of the dataset's own split."""
    hashes = dict(index.hashes(dict.fromkeys(clip.path for clip in data.clips)))
    parts: dict[str, list[tuple[Clip, str]]] = {}
    for clip in data.clips:
        digest = hashes[clip.path]
        if clip.split is not None and isinstance(digest, str):
            parts.setdefault(clip.split, []).append((clip, digest))
    return duplicates_across(parts)
