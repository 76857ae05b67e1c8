"""Looking at a dataset before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import DEFAULT_BACKBONE, find_backbone
from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.content import ContentIndex
from vidfuse.data.grouping import listing
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import duplicates_across
from vidfuse.errors import InputError
from vidfuse.features.spec import FeatureConfig
from vidfuse.progress import Reporter
from vidfuse.results import Failure, Inspection, Leak, Range
from vidfuse.statistics import clusters_of, mean_interval
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool

FRAMES = 16
NOTABLE = 0.1  # share of clips that metadata must tell beyond the most frequent class
EXAMPLES = (DEFAULT_BACKBONE, "resnet50")  # encoders whose features' size is told


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
    telling = [leak for leak in found.get("leaks", []) if leak.tells]
    return Inspection(
        name=data.name,
        layout=data.layout,
        clips=len(data.clips),
        classes={str(label): n for label, n in sorted(_labels(data).items())},
        unlabelled=data.count("label")[None],
        groups=len(groups) - (None in groups),
        splits={str(part): n for part, n in data.count("split").items() if part},
        split_source=data.split_source,
        problems=[*data.problems, *_indivisible(data), *map(_warning, telling)],
        feature_bytes={name: _feature_bytes(name, len(data.clips)) for name in EXAMPLES},
        **found,
    )


def _feature_bytes(backbone: str, clips: int) -> dict[str, int]:
    """Bytes that the features of so many clips have in the cache, by grid."""
    channels = find_backbone(backbone)[1].channels
    return {str(g): clips * FRAMES * channels * g * g * 2 for g in (1, 2, 4)}


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
    labelled: list[tuple[Clip, Frames]] = []
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
        if clips[request].label is not None:
            labelled.append((clips[request], answer))
    reporter.finish()
    return {
        "unreadable": unreadable,
        "with_warnings": warned,
        "frames": _range(frames),
        "seconds": _range(seconds),
        "sizes": dict(sizes.most_common(10)),
        "duplicates": _duplicates(data, index),
        "leaks": find_leaks(labelled),
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


def find_leaks(clips: Sequence[tuple[Clip, Frames]]) -> list[Leak]:
    """Find out what frame rate, size and number of frames tell of the class of a clip.

    A head could learn these instead of the action: a data set's classes may come from different
    cameras, sites or editors. Each is measured on clips of other groups only.

    Args:
        clips: Clips with a label, with what was read of them.

    Returns:
        One for each that is not the same for all clips, and one for all of them together.
    """
    labels = [str(clip.label) for clip, _ in clips]
    if len(set(labels)) < 2:
        return []
    groups = [clip.group for clip, _ in clips]
    clusters, count = clusters_of(groups, len(clips))
    if count < 2:
        return []
    classes = np.unique(labels, return_inverse=True)[1]
    metadata = {
        "frame rate": [[f.count / max(f.end - f.start, 1e-9)] for _, f in clips],
        "frame size": [[f.width, f.height] for _, f in clips],
        "number of frames": [[f.count] for _, f in clips],
    }
    columns = {name: np.round(np.array(values, float), 2) for name, values in metadata.items()}
    together = np.hstack(list(columns.values()))
    spread = together.std(0)
    columns["frame rate, size and number of frames"] = together / np.where(spread > 0, spread, 1)
    majority = float(np.bincount(classes).max() / len(classes))
    found = []
    for name, values in columns.items():
        if not np.ptp(values, axis=0).any():
            continue  # what is the same everywhere tells nothing
        right = _votes(values, classes, clusters)
        gain = right - majority
        interval = mean_interval(gain, groups) or [gain.mean(), gain.mean()]
        found.append(
            Leak(
                metadata=name,
                accuracy=float(right.mean()),
                majority=majority,
                tells=bool(gain.mean() >= NOTABLE and interval[0] > 0),
            )
        )
    return found


def _votes(
    values: NDArray[np.float64], classes: NDArray[np.int64], clusters: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """True [N] where most of the nearest clips of other clusters have the clip's class.

    Nearest are all at the least distance: of values that are constant per class, many are.
    """
    right = np.zeros(len(values), bool)
    for row, value in enumerate(values):  # all distances at once may need gigabytes
        others = clusters != clusters[row]
        distances = np.abs(values[others] - value).sum(1)
        nearest = classes[others][distances == distances.min()]
        right[row] = np.bincount(nearest).argmax() == classes[row]
    return right


def _warning(leak: Leak) -> str:
    """A leak in words."""
    return (
        f"the class follows from the {leak.metadata} alone for {leak.accuracy:.0%} of the clips, "
        f"judged by clips of other groups (the most frequent class: {leak.majority:.0%}): a model "
        "may learn it instead of the action"
    )
