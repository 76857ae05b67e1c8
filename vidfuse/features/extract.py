"""The pipeline: clips → content keys → cache, or decode → encode → cache.

Decode processes read clips, threads run the backbone, and another writes to the cache, all at once.
Each stage is at most a few clips ahead of the next, so that memory does not grow with their number.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from vidfuse.backbones import FP32
from vidfuse.data.clip import Clip
from vidfuse.data.content import CHANGED, RUN_AGAIN, ContentIndex, stamp_of
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import Entry, Store, entry_key
from vidfuse.features.encode import Encoder, Encoding, Job
from vidfuse.features.spec import FeatureSpec
from vidfuse.progress import Reporter
from vidfuse.video import Crop
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool
from vidfuse.video.view import View

# An extraction of this many clips says beforehand how long it takes and how large it gets, looks
# for the fastest numerical mode, and starts decode processes one by one as they are needed.
LARGE = 200
DECODED_AHEAD = 2  # clips for each decode process, so that none waits for its next order
STAGES = ("decode", "forward", "write")
WRITES = 4  # entries that may wait for the disk
Result = Entry | InputError


@dataclass(slots=True)
class ExtractionStats:
    """Counts of an extraction.

    Attributes:
        computed: Clips decoded and encoded.
        reused: Clips found in the cache, or with the content of another clip of the run.
        failures: Clips that could not be read, with the reason.
        hashes: Content hash of each clip that could be read.
    """

    computed: int = 0
    reused: int = 0
    failures: list[tuple[Clip, InputError]] = field(default_factory=list)
    hashes: dict[Clip, str] = field(default_factory=dict)


@dataclass(slots=True)
class Extractor:
    """Turns clips into features, through a cache.

    Attributes:
        spec: What the features mean.
        encoder: Runs the backbone.
        decoder: Name of the decode policy.
        store: The cache; None computes everything and keeps nothing.
        index: Remembers content hashes.
        workers: Clips decoded at once; None chooses.
        time_limit: Seconds that decoding one clip may take; None chooses.
        memory: Bytes that decoding one clip may take; None chooses.
        reporter: Receives progress updates and collects the time of each stage. ``cache`` is the
            time for content hashes and looking into the cache, ``decode``, ``forward`` and
            ``write`` that of waiting for each of these stages.
        pool: Decode processes that the caller keeps; None starts some for each run.
        mirrored: Whether frames are mirrored left to right, with entries of their own; of random
            views, those of about every second clip.
        view: Number of the random view of each clip, which has entries of its own; 0 is the plain
            clip. See ``View``.
        more: Specs whose features are cached too, from the same forward pass: they differ from
            `spec` in the grid.
        stats: What was done so far.
    """

    spec: FeatureSpec
    encoder: Encoder
    decoder: str
    store: Store | None
    index: ContentIndex
    workers: int | None = None
    time_limit: float | None = None
    memory: int | None = None
    reporter: Reporter = field(default_factory=Reporter)
    pool: DecodePool | None = None
    mirrored: bool = False
    view: int = 0
    more: list[FeatureSpec] = field(default_factory=list)
    stats: ExtractionStats = field(default_factory=ExtractionStats)

    def run(self, clips: Sequence[Clip], *, read: bool = True) -> Iterator[tuple[Clip, Result]]:
        """Features of each clip, in the order in which they are ready.

        Args:
            clips: What to extract.
            read: Whether cached entries are wanted too; False yields only what was computed
                and what failed.

        Raises:
            UserError: The cache cannot be written, the disk is too small, the backbone cannot be
                built, or features of a clip do not fit float16.
        """
        jobs: dict[str, Job] = {}
        for clip, found in self.find(clips, read=read):
            if not isinstance(found, Job):
                yield clip, found
            elif found.key in jobs:
                jobs[found.key].clips.append(clip)
            else:
                jobs[found.key] = found
        if not jobs:
            return
        many = len(jobs) >= LARGE
        if many and self.store is not None:
            self._estimate(self.store, list(jobs.values()))
        waiting, others = deque(jobs.values()), list[Clip]()
        jobs.clear()  # a job that is done is not held any longer
        throughput, computed, frames, failed = Throughput(self.reporter), 0, 0, 0
        self.reporter.start("Extracting features", len(waiting))
        try:
            for job in self.compute(waiting, many=many):
                if job.others_differ:
                    others += job.clips[1:]
                    del job.clips[1:]
                if job.error is not None:
                    self.stats.failures += [(clip, job.error) for clip in job.clips]
                    failed += 1
                else:
                    computed += 1
                    frames += len(job.frames.times) if job.frames else 0
                    self.stats.computed += 1
                    self.stats.reused += len(job.clips) - 1
                if job.content is not None:
                    self.stats.hashes[job.clips[0]] = job.content.digest
                self.reporter.advance(note=throughput.note(computed, frames, failed))
                for clip in job.clips:
                    yield clip, job.error or job.entries[0]
        finally:
            self.reporter.finish()
        if others:
            yield from self.run(others, read=read)

    def find(
        self, clips: Sequence[Clip], *, read: bool = True
    ) -> Iterator[tuple[Clip, Result | Job]]:
        """Look clips up without decoding them, in the order given.

        Args:
            clips: Whose features are looked for.
            read: As for `run`; without it, clips that the cache has are left out.

        Yields:
            A clip, and its entry, why the clip cannot be read, or a job that computes the entry.
        """
        self.reporter.expect("cache", *STAGES)
        with self.reporter.measure("cache"):
            shown = self.reporter if len(clips) >= LARGE else None
            contents = self.index.contents([clip.path for clip in clips], shown)
        for clip in clips:
            content = contents[clip.path]
            if isinstance(content, InputError):
                self.stats.failures.append((clip, content))
                yield clip, content
                continue
            self.stats.hashes[clip] = content.digest
            view, mirrored = None, self.mirrored
            if self.view:
                view = View.draw(entry_key(content.digest, clip), self.view)
                mirrored = mirrored and view.flip
            key = entry_key(content.digest, clip, mirrored, view)
            entry, there = None, False
            if self.store is not None:
                with self.reporter.measure("cache"):
                    if read:
                        entry = self.store.read(self.spec, key, self.reporter)
                    there = entry is not None or (not read and self.store.has(self.spec, key))
            self.stats.reused += there
            if entry is not None:
                yield clip, entry
            elif not there:
                window, steps = self.spec.window, self.spec.steps
                yield clip, Job([clip], key, self.request(clip, view), content, window, steps)

    def request(self, clip: Clip, view: View | None = None) -> FrameRequest:
        """The request for the frames that a clip's features, or those of a view, are made of."""
        spec = self.spec
        crop: Crop = spec.crop  # type: ignore[assignment]  # checked with the options
        sampling, frames = spec.sampling, spec.frames
        if spec.window > 1:
            sampling = f"windows:{spec.window}@{spec.rate:g}"
            frames = max(1, spec.frames // spec.steps) * spec.window
        return FrameRequest(
            path=str(clip.path),
            sampling=sampling,
            frames=frames,
            start=clip.start,
            end=clip.end,
            size=spec.size,
            crop=crop,
            fps=spec.fps,
            mirrored=self.mirrored and (view is None or view.flip),
            interpolation=spec.interpolation,
            crop_fraction=spec.crop_fraction,
            view=view,
        )

    def compute(self, waiting: deque[Job], *, many: bool) -> Iterator[Job]:
        """Decode, encode and write side by side; jobs come out when they are in the cache.

        Of many clips it begins with one decode process, and more are started as long as forward
        passes wait for frames.

        Args:
            waiting: The jobs, which are taken from it.
            many: Whether there are so many that a calibration of the precision pays.
        """
        frames = sum(job.request.frames for job in waiting)
        measure = self.reporter.measure
        encoding: Encoding | None = None
        decoding: dict[Future[Frames], Job] = {}
        writing: deque[tuple[Job, Future[None]]] = deque()
        with ExitStack() as stack:
            pool = self.pool or stack.enter_context(self.new_pool(many))
            writer = stack.enter_context(ThreadPoolExecutor(1, "write"))
            stack.callback(lambda: [future.cancel() for future in decoding])
            while waiting or decoding or writing:
                while waiting and len(decoding) < DECODED_AHEAD * pool.active:
                    job = waiting.popleft()
                    decoding[pool.submit(job.request)] = job
                if encoding is None:
                    # What this imports takes seconds, in which the first clips are decoded.
                    grids = [spec.grid for spec in (self.spec, *self.more)]
                    encoding = self.encoder.begin(grids, frames, many=many)
                    stack.callback(encoding.end)
                encoded: list[Job] = []
                if decoding:
                    with measure("decode"):
                        done, _ = wait(decoding, return_when=FIRST_COMPLETED)
                    future = done.pop()
                    job = decoding.pop(future)
                    try:
                        job.frames = future.result()
                    except InputError as error:
                        job.error = error
                    del done, future  # they would keep frames in memory
                    if pool.active < pool.workers and encoding.idle:
                        pool.grow(pool.active + 1)
                    with measure("forward"):
                        encoded = encoding.add(job)
                if not decoding and not waiting:
                    with measure("forward"):
                        encoded += encoding.flush()
                for job in encoded:
                    writing.append((job, writer.submit(self._write, job)))
                while writing and (len(writing) >= WRITES or not decoding or writing[0][1].done()):
                    job, written = writing.popleft()
                    with measure("write"):
                        written.result()
                    yield job

    def new_pool(self, many: bool) -> DecodePool:
        """Decode processes; for many clips one, to which `compute` adds others."""
        active = 1 if many and self.workers is None else None
        return DecodePool(self.decoder, self.workers, self.time_limit, active, self.memory)

    def _write(self, job: Job) -> None:
        """Put the entries of a job into the cache, under the content that was decoded.

        Where the file had another content than when it was hashed, the entry goes where that one
        belongs. Where nobody can tell, the clip fails, and so does a random view, which was drawn
        for the content that is gone.

        Raises:
            UserError: The cache cannot be written.
        """
        key, before = job.key, job.content
        if before is not None:
            path = job.clips[0].path
            if job.error is not None:
                job.others_differ = stamp_of(path) != before.stamp
                return
            assert job.frames is not None
            try:
                job.content = self.index.content_then(path, before, job.frames.stamp)
            except InputError as error:
                job.error, job.others_differ = error, True
                return
            if job.content.digest != before.digest:
                job.others_differ = True
                if job.request.view is not None:
                    job.error = InputError(path, CHANGED, RUN_AGAIN)  # it was another clip's view
                key = entry_key(job.content.digest, job.clips[0], self.mirrored)
        if self.store is not None and job.error is None:
            for spec, entry in zip((self.spec, *self.more), job.entries, strict=False):
                self.store.write(spec, key, entry)

    def _estimate(self, store: Store, jobs: Sequence[Job]) -> None:
        """Say how large, and how long at most, from one measured batch; stop if the disk is too
        small.

        Raises:
            UserError: The cache would not fit on its disk.
        """
        clips, frames = len(jobs), sum(job.request.frames for job in jobs)
        engine, grids = self.encoder.engine, [spec.grid for spec in (self.spec, *self.more)]
        size, window = self.spec.size, self.spec.window
        blank = np.zeros((max(8 // window, 1) * window, size, size, 3), np.uint8)
        with self.reporter.measure("forward"):
            engine.features([blank], FP32, grids)  # the first pass also sets things up
            began = time.perf_counter()
            features = engine.features([blank], FP32, grids)
            seconds = (time.perf_counter() - began) / len(blank) * frames
        room = sum(each[0].nbytes for each in features) * self.spec.frames * clips
        self.reporter.info(
            f"{clips} clips to extract: at most {room / 1e9:.2f} GB in {store.root}, "
            f"about {seconds / 60:.0f} min of forward passes in fp32 and the time to decode"
        )
        free = store.free_bytes()
        if room > free:
            raise UserError(
                f"the features need up to {room / 1e9:.1f} GB and the disk of {store.root} has "
                f"{free / 1e9:.1f} GB free",
                "Choose a smaller --grid or fewer --frames, or another place with --cache.",
            )


class Throughput:
    """Throughput from now on.

    Args:
        reporter: Has the time of each stage.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._before = dict(reporter.seconds)
        self._began = time.perf_counter()

    def note(self, clips: int, frames: int, failures: int) -> str:
        """One line: clips and frames per second, and the stage that was waited for longest."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        now = self._reporter.seconds
        waited = {stage: now.get(stage, 0.0) - self._before.get(stage, 0.0) for stage in STAGES}
        failed = f", {failures} failed" if failures else ""
        return (
            f"{clips / seconds:.1f} clips/s, {frames / seconds:.0f} frames/s"
            f"{failed}, waiting for {max(STAGES, key=lambda stage: waited[stage])}"
        )
