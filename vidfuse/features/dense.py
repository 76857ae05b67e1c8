"""Dense features: of a video of any length, sampled evenly, a stretch at a time.

Each stretch is a job like any clip: decoded, encoded and cached on its own. So a run that was
interrupted goes on where it was, and of a video that has grown only what is new is computed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vidfuse.data.clip import Clip
from vidfuse.data.content import CHANGED, RUN_AGAIN, Stamp
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import Entry, entry_key
from vidfuse.features.encode import Job
from vidfuse.features.extract import Extractor
from vidfuse.features.spec import FeatureConfig, FeatureSpec
from vidfuse.progress import Reporter
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import EPSILON, Sampling, even_moments
from vidfuse.video.stretch import MAX_SECONDS, Stretch

MANY_SECONDS = 600  # to be computed, for which a calibration of the precision pays
LEAST_RATE, MOST_RATE = 0.01, 1000.0  # samples per second
GONE = "a part of its features is no longer in the cache"


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
        Each stretch with samples (`sampled`), and its entry or why it cannot be read. The entry has
        the features at each of the `even_moments` of the stretch.

    Raises:
        InputError: The video cannot be read at all, or changed meanwhile.
    """
    spec, store = extractor.spec, extractor.store
    stretches, stamp = listed or pool.stretches(str(path), spec.fps)
    stretches = sampled(Sampling.parse(spec.sampling).rate, stretches)
    jobs = _jobs(extractor, path, stretches)
    with extractor.reporter.measure("cache"):
        # Read, and not only looked for: one that is damaged must be computed again.
        there = [
            store is not None and store.read(spec, job.key, extractor.reporter) is not None
            for job in jobs
        ]
    missing = deque(job for job, has in zip(jobs, there, strict=True) if not has)
    seconds = sum(s.end - s.start for s, has in zip(stretches, there, strict=True) if not has)
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
                yield stretch, entry or InputError(path, GONE, RUN_AGAIN)
            else:
                while job not in computed:
                    computed.add(next(computing))
                extractor.stats.computed += job.error is None
                progress.reached(stretch.end, stretch.end - stretch.start)
                yield stretch, job.error or job.entries[0]
                job.entries.clear()
        deque(computing, maxlen=0)  # ends its threads
    finally:
        extractor.reporter.finish()
    # Without a stamp it was changing all the while, and nothing says whether it only grew.
    read = [job.frames.stamp for job in jobs if job.frames is not None]
    if any(stamp is None or each != stamp for each in read):
        _check_unchanged(extractor, pool, path, dict(zip(stretches, jobs, strict=True)))


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
    """The stretches that samples lie in; of a video between two samples, the first one.

    Of one without any, `even_moments` would be the next stretch's first, or behind the video.
    """
    found = [
        each
        for each in stretches
        if even_moments(rate, each.start, each.end)[0] < each.end - EPSILON
    ]
    return found or list(stretches[:1])


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
        Job([clip], entry_key(content, clip), extractor.request(clip))
        for clip, content in zip(clips, contents, strict=True)
    ]


def _check_unchanged(
    extractor: Extractor, pool: DecodePool, path: Path, jobs: dict[Stretch, Job]
) -> None:
    """See that a video has only grown while it was read; else nothing of it stays in the cache.

    Raises:
        InputError: It became another one.
    """
    stretches, _ = pool.stretches(str(path), extractor.spec.fps)
    keys = {job.key for job in _jobs(extractor, path, stretches)}
    lost = [job for job in jobs.values() if job.key not in keys]
    for job in lost:
        if extractor.store is not None and job.frames is not None:
            extractor.store.path(extractor.spec, job.key).unlink(missing_ok=True)
    if lost and lost != list(jobs.values())[-1:]:  # the last one becomes another as it grows
        raise InputError(path, CHANGED, RUN_AGAIN)
