"""Long videos with annotations, made ready for training: windows, or sequences of moments."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidfuse.backbones import Grid, find_backbone
from vidfuse.data.annotated import AnnotatedVideo, read_annotated
from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.content import Stamp
from vidfuse.data.grouping import listing
from vidfuse.data.splits import PARTS
from vidfuse.data.timeline import beyond_the_end
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import check_failures, one_line
from vidfuse.features.cache import EntryInfo
from vidfuse.features.dense import (
    check_rate,
    dense_features,
    dense_spec,
    first_sample,
    new_pool,
    sound_entry,
    window_rate,
)
from vidfuse.features.extract import ExtractionStats
from vidfuse.features.table import FeatureBuffer, FeatureTable
from vidfuse.heads import head_class
from vidfuse.progress import Reporter
from vidfuse.training.config import DENSE, WINDOW_SECONDS, TrainConfig
from vidfuse.training.data import SHORT, TrainingData
from vidfuse.video.sampling import Indices, even_moments
from vidfuse.video.stretch import Stretch

MOST_USUAL_RATE = 25.0  # samples per second, as of videos, where the user says nothing
OVERLAP = 2  # windows and sequences begin half of their length apart
NO_BACKGROUND = "none"


@dataclass(frozen=True, slots=True)
class LongVideo:
    """A video with annotations, and its stretches.

    Attributes:
        video: The video and its segments.
        stretches: In order.
        stamp: Of the file, when these were found; None where that changed.
    """

    video: AnnotatedVideo
    stretches: list[Stretch]
    stamp: Stamp | None

    @property
    def duration(self) -> float:
        """Its length in seconds."""
        return self.stretches[-1].end


class TimelineData(TrainingData):
    """Videos with annotations, their dense features, and the settings of a run on them.

    Its clips are windows (``windowed``) or sequences (``dense``) of the videos, which overlap by
    half; all of a video are on one side of a split. The features are those of whole videos, so
    nothing is decoded twice.

    Args:
        dataset: A manifest, a file of annotations, or a folder of either; see `read_annotated`.
        config: All settings.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The dataset or the settings cannot be used.
    """

    def __init__(self, dataset: Path | str, config: TrainConfig, reporter: Reporter) -> None:
        check_settings(config)
        self.dense = config.timeline == DENSE
        if config.class_weights is None and not self.dense:
            config = replace(config, class_weights="sampler")  # most of a long video is background
        root = Path(dataset)
        with reporter.measure("scan"):
            videos, problems = read_annotated(root)
            config = with_sampling(config, videos)
            self.sample_rate = window_rate(config.frames, config.seconds)
            found, failures = list_videos(videos, config)
        self.videos = {each.video.path: each for each in found}
        self.frame_labels: dict[Clip, list[str | None]] = {}
        clips = [clip for each in found for clip in self._clips(each, config)]
        declared = any(clip.split for clip in clips)
        problems += filter(
            None,
            (beyond_the_end(e.video.path, e.video.segments, e.duration) for e in found),
        )
        problems += without_windows(root, found, clips)
        if not declared and not any(each.video.group for each in found) and len(found) < len(PARTS):
            raise UserError(
                f"{root}: {len(found)} videos are too few for train, validation and test",
                "Add videos, or a column split with train, val or test in each row.",
            )
        data = Dataset(
            root,
            "timelines",
            clips,
            "the dataset's own" if declared else None,
            problems,
            frame_classes={c: set(filter(None, each)) for c, each in self.frame_labels.items()},
        )
        names = {name for each in self.frame_labels.values() for name in each if name}
        reporter.info(
            f"{data.name}: {len(found)} videos, "
            f"{sum(each.duration for each in found) / 60:.1f} min, "
            f"{len(names or data.classes)} classes; {len(clips)} "
            f"{'sequences' if self.dense else 'windows'} of {config.frames} samples in "
            f"{config.seconds:g} s"
        )
        super().__init__(dataset, config, reporter, data)
        for _, error in failures:
            reporter.warn(one_line(error))
        check_failures(failures, len(videos), config.max_failed)

    def _clips(self, long: LongVideo, config: TrainConfig) -> list[Clip]:
        """The windows or sequences of a video that have a class."""
        length, rate = config.frames, self.sample_rate
        background = None if config.background == NO_BACKGROUND else config.background
        moments = even_moments(rate, 0.0, long.duration).tolist()
        labels = [label or background for label in long.video.labels_at(moments)]
        count = len(labels)
        starts = list(range(0, max(1, count - length + 1), max(1, length // OVERLAP)))
        if starts[-1] + length < count:
            starts.append(count - length)
        clips = []
        for start in starts:
            inside = labels[start : start + length]
            (label, most), *_ = Counter(inside).most_common(1)
            # A window that is half one thing and half another is neither.
            if self.dense and any(inside):
                label = next(each for each, _ in Counter(filter(None, inside)).most_common(1))
            elif label is None or 2 * most <= len(inside):
                continue
            clip = Clip(
                long.video.path,
                label,
                long.video.group or str(long.video.path),
                long.video.split,
                start / rate,
                min((start + length) / rate, long.duration),
            )
            if self.dense:
                self.frame_labels[clip] = inside
            clips.append(clip)
        return clips

    def classes_of(self, clips: Sequence[Clip]) -> list[str]:
        """List the classes that can be learned from clips, or from their frames.

        Raises:
            UserError: There are fewer than two.
        """
        if not self.dense:
            return super().classes_of(clips)
        names = {name for clip in clips for name in self.frame_labels[clip]}
        return super().classes_of([Clip(self.data.root, name) for name in names])

    def gather(
        self,
        clips: Sequence[Clip],
        *,
        augmented: Sequence[Clip] = (),  # noqa: ARG002 - there are no views
        grid: Grid | None = None,
        path: Path | None = None,
    ) -> FeatureTable:
        """Collect dense features of the videos, and which of them are in each window.

        Windows with a part that cannot be read are left out, with a warning. For the rest see
        `TrainingData.gather`.
        """
        self.classes_of(clips)
        spec = self.extractor.spec if grid is None else self.spec(grid)
        extractor = replace(self.extractor, spec=dense_spec(spec, self.sample_rate), more=[])
        extractor.stats = ExtractionStats()
        videos = [self.videos[path] for path in dict.fromkeys(clip.path for clip in clips)]
        count = sum(len(each.stretches) for each in videos)
        buffer = FeatureBuffer(count, self.config.cache_folder, path)
        samples: dict[Path, list[Indices]] = {}  # numbers [N] of a video's, and indices of features
        infos: dict[Path, EntryInfo] = {}
        with closing(new_pool(self.config)) as pool:
            extractor.pool = pool
            for each in videos:
                video, listed = each.video.path, (each.stretches, each.stamp)
                own = samples.setdefault(video, [])
                for stretch, entry in dense_features(extractor, pool, video, listed):
                    sound = sound_entry(video, stretch, entry, self.reporter)
                    if sound is None:
                        continue
                    begin = buffer.append(sound.features)
                    numbers = np.arange(len(sound.features))
                    first = first_sample(self.sample_rate, stretch)
                    own.append(np.stack([first + numbers, begin + numbers]))
                    infos[video] = sound.info
        self.all_stats.append(extractor.stats)
        return self._table(clips, samples, infos, buffer)

    def _table(
        self,
        clips: Sequence[Clip],
        samples: Mapping[Path, Sequence[Indices]],
        infos: Mapping[Path, EntryInfo],
        buffer: FeatureBuffer,
    ) -> FeatureTable:
        """The rows of windows in the features of their videos."""
        length = self.config.frames
        of_videos = {path: np.concatenate(own, 1) for path, own in samples.items() if own}
        rows: dict[Clip, int] = {}
        firsts, counts = list[int](), list[int]()
        for clip in clips:
            first = round((clip.start or 0.0) * self.sample_rate)
            numbers, indices = of_videos.get(clip.path, np.zeros((2, 0), np.int64))
            begin, stop = np.searchsorted(numbers, [first, first + length]).tolist()
            inside = indices[begin:stop].tolist()
            whole = len(self.frame_labels[clip]) if self.dense else min(length, len(numbers))
            if not inside or len(inside) < whole or inside[-1] - inside[0] != len(inside) - 1:
                self.unreadable.add(clip)
                continue
            rows[clip] = len(firsts)
            firsts.append(inside[0])
            counts.append(len(inside))
            self.hashes[clip] = self.contents[clip.path]
        if not rows:
            raise UserError("no window has features", "Look at the warnings above.")
        lengths = np.array(counts)
        starts = np.array([clip.start for clip in rows], float)
        self.clip_seconds = self.config.seconds
        videos = [self.videos[path] for path in infos]
        ends = [(each.video, each.duration) for each in videos]
        seconds = segment_lengths(ends, self.config.background)
        self.segment_seconds = float(np.quantile(seconds or [0.0], SHORT))
        return FeatureTable(
            features=buffer.array(),
            firsts=np.array(firsts),
            lengths=lengths,
            chosen=np.arange(length)[None].repeat(len(rows), 0).clip(max=lengths[:, None] - 1),
            chosen_lengths=lengths,
            times=np.zeros((len(rows), 1)),
            starts=starts,
            ends=starts + lengths / self.sample_rate,
            jitter=False,
            rows=rows,
            infos=[infos[clip.path] for clip in rows],
            frame_labels={clip: self.frame_labels[clip] for clip in rows if self.dense},
        )

    def fingerprint(self, parts: Mapping[str, Sequence[Clip]]) -> str:
        """Digest of all that a head learns from; the classes of frames among it."""
        own = {part: [self.frame_labels.get(clip) for clip in parts[part]] for part in parts}
        text = json.dumps([super().fingerprint(parts), self.sample_rate, own])
        return hashlib.sha256(text.encode()).hexdigest()


def without_windows(root: Path, found: Sequence[LongVideo], clips: Sequence[Clip]) -> list[str]:
    """A line on videos of which there is no window or sequence.

    Raises:
        UserError: None is left.
    """
    used = {clip.path for clip in clips}
    lost = [str(each.video.path) for each in found if each.video.path not in used]
    if not lost:
        return []
    why = "no class fills more than half of any window of them"
    if not clips:
        raise UserError(f"{root}: {why}", "Choose a shorter --window.")
    return [f"{len(lost)} videos are left out, since {why}: {listing(lost)}"]


def check_settings(config: TrainConfig) -> None:
    """Refuse what means nothing for long videos.

    Raises:
        UserError: Naming the setting, and what to do instead.
    """
    refused = {
        "views": config.views,
        "mirror": config.mirror,
        "layout": config.layout,
        "sampling": config.sampling,
        "cache-frames": config.cache_frames,
        "frame-dropout": config.timeline == DENSE and config.frame_dropout,
    }
    for name, value in refused.items():
        if value:
            raise UserError(f"--{name} is for clips, and not for long videos", "Leave it out.")
    if find_backbone(config.backbone)[1].kind == "clip":
        raise UserError(
            f"{config.backbone} sees windows of frames, and cannot slide over a video",
            "Choose an encoder of single frames: vidfuse backbones",
        )
    if head_class(config.head).selects_frames:
        raise UserError(
            f"head '{config.head}' selects its frames, and cannot slide over a video",
            "Choose another one: vidfuse heads",
        )


def segment_lengths(videos: Sequence[tuple[AnnotatedVideo, float]], background: str) -> list[float]:
    """Seconds of the segments, but for point events and what lies behind the end of a video.

    Args:
        videos: Each with the time at which it ends.
        background: The class whose segments do not count.
    """
    lengths = [
        min(segment.end, end) - segment.start
        for video, end in videos
        for segment in video.segments
        if segment.label != background
    ]
    return [each for each in lengths if each > 0]


def with_sampling(config: TrainConfig, videos: Sequence[AnnotatedVideo]) -> TrainConfig:
    """The settings with a length of windows or a rate of samples.

    Where the user says nothing, they go by the annotated segments: a window that is longer than
    most of them has another one in it, too, and a segment has as many samples as a clip has frames.
    """
    lengths = segment_lengths([(video, np.inf) for video in videos], config.background)
    usual = min(WINDOW_SECONDS, float(np.median(lengths)) if lengths else WINDOW_SECONDS)
    usual = max(usual, config.frames / MOST_USUAL_RATE)
    if config.timeline == DENSE:
        rate = config.rate or round(config.frames / usual, 3)
        return replace(config, rate=rate, frames=round(rate * config.seconds))
    return replace(config, window=config.window or round(usual, 3))


def list_videos(
    videos: Sequence[AnnotatedVideo], config: TrainConfig
) -> tuple[list[LongVideo], list[tuple[Clip, InputError]]]:
    """The stretches of each video, and why others cannot be read."""
    found, failures = list[LongVideo](), list[tuple[Clip, InputError]]()
    with closing(new_pool(config)) as pool:
        for video in videos:
            try:
                listed = pool.stretches(str(video.path), config.fps)
                check_rate(video.path, window_rate(config.frames, config.seconds), listed[0])
                found.append(LongVideo(video, *listed))
            except InputError as error:
                failures.append((Clip(video.path), error))
    return found, failures
