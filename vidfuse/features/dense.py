"""Dense features: of a video of any length, sampled evenly, a stretch at a time.

Each stretch is a job like any clip: decoded, encoded and cached on its own. So a run that was
interrupted goes on where it was, and of a video that has grown only what is new is computed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.clip import Clip
from vidfuse.data.content import CHANGED, RUN_AGAIN, Stamp
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import one_line
from vidfuse.features.cache import Entry, entry_key
from vidfuse.features.encode import Job
from vidfuse.features.extract import Extractor
from vidfuse.features.spec import FeatureConfig, FeatureSpec
from vidfuse.progress import Reporter
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import EPSILON, Sampling, Times, even_moments, moments_before
from vidfuse.video.stretch import MAX_SECONDS, Stretch, frame_rate

MANY_SECONDS = 600  # of a video, for which a calibration of the precision pays
LEAST_RATE, MOST_RATE = 0.01, 1000.0  # samples per second
GONE = "a part of its features is no longer in the cache"
UNREADABLE = "damaged: no frame of it can be read"
COPY_AGAIN = "Copy or record it again; what lies before and behind is used."
MOST_REPEATS, USUAL_FPS = 10, 25  # samples for a frame, at most; of videos with fewer frames, too
SLACK = 1.01  # between the rates of frames and samples, as of 29.97 and 30
NAMED_HOLES = 3  # of a video that has more of them


def window_rate(samples: int, seconds: float) -> float:
    """Samples per second of windows of so many samples, as the spec has it.

    Raises:
        UserError: A window has none, or a second more than any video has frames.
    """
    rate = round(samples / seconds, 6)
    if not 0 < rate <= MOST_RATE:
        raise UserError(
            f"{samples} samples in a window of {seconds:g} s",
            f"A window has one at least, and a second {MOST_RATE:g} at most: choose another "
            "--window.",
        )
    return rate


def dense_spec(spec: FeatureSpec, rate: float) -> FeatureSpec:
    """The spec of clips' features, for whole videos.

    Args:
        spec: Of an encoder that sees single frames.
        rate: Samples per second.
    """
    return replace(spec, sampling=f"rate:{rate:.10g}", frames=int(MAX_SECONDS * rate) + 1)


def new_pool(config: FeatureConfig) -> OpenClips:
    """Decode processes that keep the video open which they read last."""
    return OpenClips(config.decoder, config.workers, config.time_limit, config.memory_bytes)


def dense_features(
    extractor: Extractor,
    pool: DecodePool,
    path: Path,
    listed: tuple[list[Stretch], Stamp | None] | None = None,
) -> Iterator[tuple[Stretch, Entry | InputError]]:
    """Features of a video, a stretch at a time and in order; few of them are in memory.

    Args:
        extractor: Of a `dense_spec`.
        pool: Its decode processes, which keep clips open.
        path: The video, or a frame folder.
        listed: Its stretches and stamp, where `DecodePool.stretches` was asked for them before.

    Yields:
        Each stretch with samples (`sampled`), and its entry or why it cannot be read; one with a
        damaged part in pieces. The entry has the features at each of the `even_moments` of the
        stretch. The warnings of the first one tell of times without frames, and of more samples
        than frames.

    Raises:
        InputError: The video cannot be read at all, or changed meanwhile, or the rate is absurd.
    """
    spec, store = extractor.spec, extractor.store
    stretches, stamp = listed or pool.stretches(str(path), spec.fps)
    rate = Sampling.parse(spec.sampling).rate
    of_times = check_rate(path, rate, stretches), still_warning(stretches)
    warnings = [text for text in of_times if text]
    stretches = sampled(rate, stretches)
    jobs = _jobs(extractor, path, stretches)
    with extractor.reporter.measure("cache"):
        # Read, and not only looked for: one that is damaged must be computed again.
        there = [
            store is not None and store.read(spec, job.key, extractor.reporter) is not None
            for job in jobs
        ]
    missing = deque(job for job, has in zip(jobs, there, strict=True) if not has)
    # Of the whole video: one that was interrupted goes on as it began.
    seconds = stretches[-1].end - stretches[0].start
    computing = extractor.compute(missing, many=seconds >= MANY_SECONDS)
    computed: set[Job] = set()
    progress = _VideoProgress(extractor.reporter, path, stretches[-1].end)
    try:
        for stretch, job, has in zip(stretches, jobs, there, strict=True):
            if has and store is not None:
                with extractor.reporter.measure("cache"):
                    entry = store.read(spec, job.key)
                extractor.stats.reused += entry is not None
                progress.reached(stretch.end, 0)
                found: Entry | InputError = entry or InputError(path, GONE, RUN_AGAIN)
            else:
                while job not in computed:
                    computed.add(next(computing))
                extractor.stats.computed += job.error is None
                progress.reached(stretch.end, stretch.end - stretch.start)
                found = job.error or job.entries[0]
                job.entries.clear()
            if isinstance(found, Entry):
                warnings = yield from _readable_parts(path, rate, stretch, found, warnings)
            else:
                yield stretch, found
        deque(computing, maxlen=0)  # ends its threads
    finally:
        extractor.reporter.finish()
    # Without a stamp it was changing all the while, and nothing says whether it only grew.
    read = [job.frames.stamp for job in jobs if job.frames is not None]
    if any(stamp is None or each != stamp for each in read):
        _check_unchanged(extractor, pool, path, dict(zip(stretches, jobs, strict=True)))


def sound_entry(
    path: Path, stretch: Stretch, entry: Entry | InputError, reporter: Reporter
) -> Entry | None:
    """The entry of a stretch, after its warnings; None after the reason where there is none."""
    if isinstance(entry, InputError):
        reporter.warn(f"{one_line(entry)} (from {stretch.start:.1f} s)")
        return None
    for warning in entry.info.warnings:
        reporter.warn(f"{path}: {warning}")
    return entry


def check_rate(path: Path, rate: float, stretches: Sequence[Stretch]) -> str:
    """A warning where a video is sampled more often than it has frames; else empty.

    Args:
        path: The video.
        rate: Samples per second.
        stretches: Of the whole video.

    Raises:
        InputError: There would be ten samples for a frame, and more than of usual videos.
    """
    fps = frame_rate(stretches)
    what = f"{rate:g} samples a second, of a video with {fps:.4g} frames a second"
    choose = f"Choose {fps:.4g} at most: --rate, or a longer --window or fewer --frames."
    if rate > MOST_REPEATS * max(fps, USUAL_FPS):
        raise InputError(path, what, choose)
    return f"{what}, so frames count several times. {choose}" if 0 < SLACK * fps < rate else ""


def still_warning(stretches: Sequence[Stretch]) -> str:
    """A warning of the times in which a sound video has no frames; else empty."""
    holes = dict.fromkeys(hole for each in stretches for hole in each.holes if not hole.damaged)
    if not holes:
        return ""
    named = ", ".join(f"{hole.start:.1f} to {hole.end:.1f} s" for hole in list(holes)[:NAMED_HOLES])
    more = f" and {len(holes) - NAMED_HOLES} more times" if len(holes) > NAMED_HOLES else ""
    return f"no frames from {named}{more}: the one before stays on screen"


def _readable_parts(
    path: Path, rate: float, stretch: Stretch, entry: Entry, warnings: list[str]
) -> Generator[tuple[Stretch, Entry | InputError], None, list[str]]:
    """The parts of a stretch: features, and why a damaged part has none.

    Args:
        path: The video.
        rate: Samples per second.
        stretch: One of its stretches.
        entry: Features at all of its moments.
        warnings: To be told with the first entry.

    Returns:
        The warnings that are not told yet.
    """
    lost = lost_moments(rate, stretch, entry.times)
    edges = [0, *(np.flatnonzero(np.diff(lost)) + 1).tolist(), len(lost)]
    number = first_sample(rate, stretch)
    for first, stop in pairwise(edges):
        start = (number + first) / rate if first else stretch.start
        end = (number + stop) / rate if stop < len(lost) else stretch.end
        part = replace(stretch, start=start, end=end)
        if lost[first]:
            yield part, InputError(path, UNREADABLE, COPY_AGAIN)
            continue
        info = replace(entry.info, warnings=[*entry.info.warnings, *warnings])
        yield part, Entry(entry.features[first:stop], entry.times[first:stop], info)
        warnings = []
    return warnings


def lost_moments(rate: float, stretch: Stretch, times: Times) -> NDArray[np.bool_]:
    """The samples of a stretch that have no frame, since the file is damaged there.

    Those in a damaged hole, and those whose frame has been on screen for longer than any, outside
    of the holes: the container has frames there that cannot be decoded.

    Args:
        rate: Samples per second.
        stretch: Where the samples are.
        times: When their frames are shown ``[N]``, in seconds.

    Returns:
        ``[N]``.
    """
    moments = even_moments(rate, stretch.start, stretch.end)[: len(times)]
    lost = np.zeros(len(moments), bool)
    age = moments - times[: len(moments)]
    for hole in stretch.holes:
        inside = (moments > hole.start - EPSILON) & (moments < hole.end - EPSILON)
        if hole.damaged:
            lost |= inside
        else:
            age[inside] -= moments[inside] - hole.start
    return lost | (age > stretch.longest)


class _VideoProgress:
    """Progress through a video, in seconds of it.

    Args:
        reporter: Receives progress updates.
        path: The video.
        duration: Seconds of it.
    """

    def __init__(self, reporter: Reporter, path: Path, duration: float) -> None:
        self._reporter = reporter
        self._began = time.perf_counter()
        self._reached, self._computed = 0, 0.0
        reporter.start(f"Reading {path.name} (seconds)", max(1, round(duration)))

    def reached(self, end: float, computed: float) -> None:
        """A stretch is done, of which so many seconds were computed."""
        self._computed += computed
        took = max(time.perf_counter() - self._began, 1e-9)
        note = f"{self._computed / took:.1f} times as fast as it plays" if self._computed else ""
        self._reporter.advance(round(end) - self._reached, note)
        self._reached = round(end)


def first_sample(rate: float, stretch: Stretch) -> int:
    """The number of a stretch's first sample among those of its video.

    Sample k stands for the time from k / rate to (k + 1) / rate.
    """
    return round(float(even_moments(rate, stretch.start, stretch.end)[0]) * rate - 0.5)


def sampled(rate: float, stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretches that samples lie in; of a video between two samples, the one in the middle."""
    found = [
        each
        for each in stretches
        if moments_before(rate, each.end) > moments_before(rate, each.start)
    ]
    middle = (stretches[0].start + stretches[-1].end) / 2
    return found or [next(each for each in stretches if each.end > middle)]


def _jobs(extractor: Extractor, path: Path, stretches: Sequence[Stretch]) -> list[Job]:
    """A job for each stretch."""
    contents = [stretch.digest for stretch in stretches]
    if not all(contents):
        whole = extractor.index.contents([path])[path]
        if isinstance(whole, InputError):
            raise whole
        contents = [whole.digest] * len(stretches)
    clips = [Clip(path, start=stretch.start, end=stretch.end) for stretch in stretches]
    return [
        Job([clip], entry_key(content, clip), replace(extractor.request(clip), once=True))
        for clip, content in zip(clips, contents, strict=True)
    ]


def _check_unchanged(
    extractor: Extractor, pool: DecodePool, path: Path, jobs: dict[Stretch, Job]
) -> None:
    """See that a video has only grown while it was read.

    What comes behind the last packets changes the stretch that they are in, and the one before it
    where frames are stored behind a key frame that are shown before it. What is no longer in the
    video does not stay in the cache.

    Raises:
        InputError: It became another one.
    """
    stretches, _ = pool.stretches(str(path), extractor.spec.fps)
    keys = {job.key for job in _jobs(extractor, path, stretches)}
    lost = [stretch for stretch, job in jobs.items() if job.key not in keys]
    for stretch in lost:
        job = jobs[stretch]
        if extractor.store is not None and job.frames is not None:
            extractor.store.path(extractor.spec, job.key).unlink(missing_ok=True)
    at_the_end = lost == list(jobs)[len(jobs) - len(lost) :]
    all_of_it = len(lost) == len(jobs) > 1
    if not at_the_end or all_of_it or len({each.digest for each in lost}) > 2:
        raise InputError(path, CHANGED, RUN_AGAIN)
