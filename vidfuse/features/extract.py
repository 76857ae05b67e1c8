"""The pipeline: clips → content keys → cache, or decode → encode → cache.

Decode processes read clips, threads run the backbone, and another writes to the cache, all at once.
Each stage is at most a few clips ahead of the next, so that memory does not grow with their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidfuse.backbones.imports import import_torch
from vidfuse.data.clip import Clip
from vidfuse.data.stamp import Stamp, stamp_of
from vidfuse.errors import InputError, UserError
from vidfuse.features.ahead import ahead
from vidfuse.features.encode import Encoder
from vidfuse.features.identity import Content, ContentIndex, entry_key
from vidfuse.features.pace import Pace
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.store import Entry, Store
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.video.frames import Crop, FrameRequest, Frames
from vidfuse.video.workers import DecodePool

if TYPE_CHECKING:
    from vidfuse.backbones.load import Backbone

# An extraction of this many clips says beforehand how long it takes and how large it gets, looks
# for the fastest numerical mode, and starts decode processes one by one as they are needed.
LARGE = 200
WRITES = 4  # entries that may wait for the disk
COMMON_GRID = 2  # which the default head reads, and of which a single cell can be derived
Result = Entry | InputError


@dataclass(slots=True)
class Tally:
    """What an extraction did.

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
        backbone: Builds the network; called only if something has to be computed.
        decoder: Name of the decode policy.
        store: The cache; None computes everything and keeps nothing.
        index: Remembers content hashes.
        workers: Clips decoded at once; None chooses.
        time_limit: Seconds that decoding one clip may take; None chooses.
        memory: Bytes that decoding one clip may take; None chooses.
        progress: Hears of progress.
        timings: The command's clock. ``cache`` is the time for content hashes and looking into the
            cache, ``decode``, ``forward`` and ``write`` that of waiting for each of these stages.
        precision: ``auto``, or the numerical precision that was asked for.
        pool: Decode processes that are kept by whoever made them; None starts some for each run.
        mirrored: Whether pictures are mirrored left to right, a view with entries of its own.
        for_all: Whether features of one cell are cached with `COMMON_GRID` cells a side too, from
            the same forward pass, so that most other heads find theirs.
        tally: What was done so far.
    """

    spec: FeatureSpec
    backbone: Callable[[], Backbone]
    decoder: str
    store: Store | None
    index: ContentIndex
    workers: int | None = None
    time_limit: float | None = None
    memory: int | None = None
    progress: Progress = field(default_factory=Progress)
    timings: Timings = field(default_factory=Timings)
    precision: str = "auto"
    pool: DecodePool | None = None
    mirrored: bool = False
    for_all: bool = False
    tally: Tally = field(default_factory=Tally)
    _encoder: Encoder | None = None
    _contents: dict[Clip, Content] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.timings.expect("cache", "decode", "forward", "write")

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
        missing: dict[str, list[Clip]] = {}
        for clip, key, found in self.find(clips, read=read):
            if found is None:
                missing.setdefault(key, []).append(clip)
            else:
                yield clip, found
        while missing:
            changed: dict[str, list[Clip]] = {}
            yield from self._compute(missing, changed)
            missing = changed

    def find(
        self, clips: Sequence[Clip], *, read: bool = True
    ) -> Iterator[tuple[Clip, str, Result | None]]:
        """What is known of each clip without decoding it, in the order given.

        Args:
            clips: Whose features are looked for.
            read: As for `run`; without it, clips that the cache has are left out.

        Yields:
            A clip, the key of its entry, and the entry, why the clip cannot be read, or None where
            the cache does not have it.
        """
        self._contents = {}
        shown = self.progress if len(clips) >= LARGE else Progress()  # which shows nothing
        with self.timings.measure("cache"):
            contents = self.index.look_at([clip.path for clip in clips], shown)
        for clip in clips:
            content = contents[clip.path]
            if isinstance(content, InputError):
                self.tally.failures.append((clip, content))
                yield clip, "", content
                continue
            self.tally.hashes[clip] = content.digest
            self._contents[clip] = content
            key = entry_key(content.digest, clip, self.mirrored)
            with self.timings.measure("cache"):
                there, entry = self._look_up(key, read)
            if not there:
                yield clip, key, None
                continue
            self.tally.reused += 1
            if entry is not None:
                yield clip, key, entry

    def _look_up(self, key: str, read: bool) -> tuple[bool, Entry | None]:
        """Whether the cache has an entry, and the entry if it is to be read."""
        if self.store is None:
            return False, None
        if not read:
            return self.store.has(self.spec, key), None
        entry = self.store.read(self.spec, key, self.progress)
        return entry is not None, entry

    def _compute(
        self, missing: dict[str, list[Clip]], changed: dict[str, list[Clip]]
    ) -> Iterator[tuple[Clip, Result]]:
        """Decode and encode each content once, whatever the number of clips that have it.

        Args:
            missing: Key of an entry → the clips whose content it is of.
            changed: Receives clips that are still to be decoded, since the one that was decoded in
                their place had another content by then.
        """
        many = len(missing) >= LARGE
        if many and self.store is not None:
            self._estimate(self.encoder(), self.store, len(missing))
        requests = {key: self.request(clips[0]) for key, clips in missing.items()}
        contents = {key: self._contents[clips[0]] for key, clips in missing.items()}
        pace = Pace(self.timings)
        self.progress.start("Extracting features", len(missing))
        try:
            with self.decoding(many) as pool:
                for key, result in self.stages(pool, requests, contents, many=many):
                    clips = missing[key]
                    now = contents.get(key)
                    if now is None or now.digest != self.tally.hashes[clips[0]]:
                        if now is not None:
                            self.tally.hashes[clips[0]] = now.digest
                        if clips[1:]:
                            changed[key] = clips[1:]
                        clips = clips[:1]
                    if isinstance(result, InputError):
                        self.tally.failures += [(clip, result) for clip in clips]
                        pace.failed()
                    else:
                        self.tally.computed += 1
                        self.tally.reused += len(clips) - 1
                        pace.done(len(result.times))
                    self.progress.advance(note=pace.note())
                    yield from ((clip, result) for clip in clips)
        finally:
            self.progress.finish()

    def stages(
        self,
        pool: DecodePool,
        requests: Mapping[str, FrameRequest],
        contents: dict[str, Content] | None = None,
        *,
        many: bool,
    ) -> Iterator[tuple[str, Result]]:
        """Decode, encode and write side by side.

        Args:
            pool: Reads clips. It is given more decode processes as long as forward passes wait for
                pictures.
            requests: Key of an entry → what to read for it.
            contents: Key of an entry → the content that it is of. Where a file had another one when
                it was decoded, that one is put here, and the entry goes where it belongs; where
                nobody can tell, the clip fails and its key is removed. None does not ask.
            many: Whether there are so many that a calibration of the precision pays.

        Yields:
            Keys and what came of them, when it is in the cache.
        """
        keys = {id(request): key for key, request in requests.items()}
        stamps: dict[str, Stamp | None] = {}
        decoded = pool.map(list(requests.values()))

        def write(item: tuple[FrameRequest, list[Entry] | InputError]) -> tuple[str, Result]:
            request, result = item
            key = keys[id(request)]
            if isinstance(result, InputError):
                # Others that had the same content may still have it.
                if contents is not None and stamp_of(Path(request.path)) != contents[key].stamp:
                    del contents[key]
                return key, result
            place = key
            if contents is not None:
                before = contents[key]
                try:
                    path = Path(request.path)
                    contents[key] = self.index.content_then(path, before, stamps.pop(key))
                except InputError as error:
                    del contents[key]
                    return key, error
                if contents[key].digest != before.digest:
                    clip = Clip(path, start=request.start, end=request.end)
                    place = entry_key(contents[key].digest, clip, self.mirrored)
            if self.store is not None:
                for spec, entry in zip(self._specs(), result, strict=False):
                    self.store.write(spec, place, entry)
            return key, result[0]

        waiting = {part: partial(self.timings.measure, part) for part in ("forward", "write")}
        encoder = self.encoder()
        encoded = encoder.run(
            self._timed(decoded, pool, encoder, keys, stamps),
            len(requests) * self.spec.frames,
            many,
            waiting["forward"],
        )
        with ThreadPoolExecutor(1, "write") as writer:
            yield from ahead(writer, write, encoded, WRITES, waiting["write"], finish=True)

    def decoding(self, many: bool) -> AbstractContextManager[DecodePool]:
        """The decode processes; those that nobody keeps end with the run.

        Of many clips it begins with one process, and `stages` adds others as they are needed.
        """
        if self.pool is not None:
            return nullcontext(self.pool)
        active = 1 if many and self.workers is None else None
        return DecodePool(self.decoder, self.workers, self.time_limit, active, self.memory)

    def encoder(self) -> Encoder:
        """Turns pictures into features; built when it is first needed."""
        if self._encoder is None:
            with self.timings.measure("imports"):
                import_torch()
                from vidfuse.backbones.precision import Modes

            spec = self.spec
            identity = (spec.backbone, spec.layer, spec.weights[:16], f"{spec.size} px")
            others = [COMMON_GRID] if len(self._specs()) > 1 else []
            modes = Modes(self.backbone(), self.precision, identity)
            self._encoder = Encoder(modes, spec.grid, others)
        return self._encoder

    def _specs(self) -> list[FeatureSpec]:
        """What is cached: the features that are asked for and, maybe, those of another grid."""
        if self.for_all and self.spec.grid == 1:
            return [self.spec, replace(self.spec, grid=COMMON_GRID)]
        return [self.spec]

    def request(self, clip: Clip) -> FrameRequest:
        """Which pictures of a clip its features are made of."""
        crop: Crop = self.spec.crop  # type: ignore[assignment]  # checked with the options
        return FrameRequest(
            path=str(clip.path),
            sampling=self.spec.sampling,
            frames=self.spec.frames,
            start=clip.start,
            end=clip.end,
            size=self.spec.size,
            crop=crop,
            fps=self.spec.fps,
            mirrored=self.mirrored,
        )

    def _timed(
        self,
        decoded: Iterator[tuple[FrameRequest, Frames | InputError]],
        pool: DecodePool,
        encoder: Encoder,
        keys: Mapping[int, str],
        stamps: dict[str, Stamp | None],
    ) -> Iterator[tuple[FrameRequest, Frames | InputError]]:
        """Decoded clips as they come; their files' stamps are kept aside."""
        while True:
            with self.timings.measure("decode"):
                item = next(decoded, None)
            if item is None:
                return
            if encoder.idle:
                pool.grow(pool.active + 1)
            request, frames = item
            if isinstance(frames, Frames):
                stamps[keys[id(request)]] = frames.stamp
            yield item

    def _estimate(self, encoder: Encoder, store: Store, clips: int) -> None:
        """Say how large, and how long at most, from one measured batch; stop if the disk is too
        small.

        Raises:
            UserError: The cache would not fit on its disk.
        """
        blank = np.zeros((8, self.spec.size, self.spec.size, 3), np.uint8)
        with self.timings.measure("forward"):
            encoder.in_fp32(blank)  # the first pass also sets things up
            began = time.perf_counter()
            features = encoder.in_fp32(blank)
            seconds = (time.perf_counter() - began) / len(blank) * self.spec.frames * clips
        size = sum(each[0].nbytes for each in features) * self.spec.frames * clips
        self.progress.info(
            f"{clips} clips to extract: at most {size / 1e9:.2f} GB in {store.root}, "
            f"about {seconds / 60:.0f} min of forward passes in fp32 and the time to decode"
        )
        free = store.free_bytes()
        if size > free:
            raise UserError(
                f"the features need up to {size / 1e9:.1f} GB and the disk of {store.root} has "
                f"{free / 1e9:.1f} GB free",
                "Choose a smaller --grid or fewer --frames, or another place with --cache.",
            )
