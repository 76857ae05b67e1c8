"""The pipeline: clips → content keys → cache, or decode → batches across clips → cache.

Decode processes read clips side by side while this process runs the backbone. A batch is filled
with pictures of several clips, since a forward pass per short clip wastes most of a machine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features.identity import ContentIndex, entry_key
from vidfuse.features.pool import pool
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.store import Entry, EntryInfo, Store
from vidfuse.progress import Progress
from vidfuse.video.frames import Crop, FrameRequest, Frames, Pictures
from vidfuse.video.workers import DecodePool

if TYPE_CHECKING:
    from vidfuse.backbones.load import Backbone

CPU_BATCH, GPU_BATCH = 32, 256
# An extraction of this many clips says beforehand how long it takes and how large it gets.
LARGE = 200
Result = Entry | InputError


@dataclass(slots=True)
class Tally:
    """What an extraction did.

    Attributes:
        computed: Clips decoded and encoded.
        reused: Clips found in the cache.
        failures: Clips that could not be read, with the reason.
        hashes: Content hash of each clip that could be read.
        decode_seconds: Time this process waited for pictures.
        forward_seconds: Time spent in the backbone.
        cache_seconds: Time spent on content hashes and the cache.
    """

    computed: int = 0
    reused: int = 0
    failures: list[tuple[Clip, InputError]] = field(default_factory=list)
    hashes: dict[Clip, str] = field(default_factory=dict)
    decode_seconds: float = 0.0
    forward_seconds: float = 0.0
    cache_seconds: float = 0.0


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
        progress: Hears of progress.
        tally: What was done so far.
    """

    spec: FeatureSpec
    backbone: Callable[[], Backbone]
    decoder: str
    store: Store | None
    index: ContentIndex
    workers: int | None = None
    time_limit: float | None = None
    progress: Progress = field(default_factory=Progress)
    tally: Tally = field(default_factory=Tally)
    _network: Backbone | None = None

    def run(self, clips: Sequence[Clip], *, read: bool = True) -> Iterator[tuple[Clip, Result]]:
        """Features of each clip, in the order in which they are ready.

        Args:
            clips: What to extract.
            read: Whether cached entries are wanted too; False yields only what was computed
                and what failed.

        Raises:
            UserError: The cache cannot be written, the disk is too small, or the backbone
                cannot be built.
        """
        missing: list[tuple[Clip, str]] = []
        for clip, key in self._keys(clips):
            if isinstance(key, InputError):
                self.tally.failures.append((clip, key))
                yield clip, key
                continue
            began = time.perf_counter()
            entry = self.store.read(self.spec, key) if self.store and read else None
            there = entry is not None or (
                not read and self.store is not None and self.store.has(self.spec, key)
            )
            self.tally.cache_seconds += time.perf_counter() - began
            if not there:
                missing.append((clip, key))
                continue
            self.tally.reused += 1
            if entry is not None:
                yield clip, entry
        if missing:
            yield from self._compute(missing)

    def _keys(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, str | InputError]]:
        began = time.perf_counter()
        known = dict(self.index.hashes(dict.fromkeys(clip.path for clip in clips)))
        self.tally.cache_seconds += time.perf_counter() - began
        for clip in clips:
            content = known[clip.path]
            if isinstance(content, InputError):
                yield clip, content
            else:
                self.tally.hashes[clip] = content
                yield clip, entry_key(content, clip)

    def _compute(self, missing: list[tuple[Clip, str]]) -> Iterator[tuple[Clip, Result]]:
        with DecodePool(self.decoder, self.workers, self.time_limit) as pool_:
            requests = [self._request(clip) for clip, _ in missing]
            owner = {id(request): item for request, item in zip(requests, missing, strict=True)}
            self._network = self._network or self.backbone()
            if len(missing) >= LARGE and self.store is not None:
                self._estimate(len(missing))
            self.progress.start("Extracting features", len(missing))
            decoded = self._timed(pool_.map(requests))
            for request, result in self._encode(decoded):
                clip, key = owner[id(request)]
                self.progress.advance()
                if isinstance(result, InputError):
                    self.tally.failures.append((clip, result))
                    self.progress.warn(str(result).replace("\n", " "))
                else:
                    self.tally.computed += 1
                    began = time.perf_counter()
                    if self.store is not None:
                        self.store.write(self.spec, key, result)
                    self.tally.cache_seconds += time.perf_counter() - began
                yield clip, result
            self.progress.finish()

    def _request(self, clip: Clip) -> FrameRequest:
        crop: Crop = self.spec.crop  # type: ignore[assignment]  # checked with the options
        return FrameRequest(
            path=str(clip.path),
            sampling=self.spec.sampling,
            frames=self.spec.frames,
            start=clip.start,
            end=clip.end,
            size=self.spec.size,
            crop=crop,
        )

    def _timed(
        self, decoded: Iterator[tuple[FrameRequest, Frames | InputError]]
    ) -> Iterator[tuple[FrameRequest, Frames | InputError]]:
        while True:
            began = time.perf_counter()
            item = next(decoded, None)
            self.tally.decode_seconds += time.perf_counter() - began
            if item is None:
                return
            yield item

    def _encode(
        self, decoded: Iterable[tuple[FrameRequest, Frames | InputError]]
    ) -> Iterator[tuple[FrameRequest, Result]]:
        """Run pictures through the backbone in batches that span clips."""
        size = GPU_BATCH if self._device().type == "cuda" else CPU_BATCH
        open_clips: list[_OpenClip] = []
        queued: list[tuple[_OpenClip, Pictures]] = []
        count = 0
        for request, frames in decoded:
            if isinstance(frames, InputError):
                yield request, frames
                continue
            clip = _OpenClip(request, frames)
            open_clips.append(clip)
            queued.append((clip, frames.pictures))
            count += len(frames.pictures)
            while count >= size:
                queued = self._forward(queued, size)
                count -= size
            yield from _finished(open_clips)
        if count:
            self._forward(queued, count)
        yield from _finished(open_clips)

    def _forward(
        self, queued: list[tuple[_OpenClip, Pictures]], size: int
    ) -> list[tuple[_OpenClip, Pictures]]:
        """Encode the first ``size`` queued pictures and hand each clip its own; the rest."""
        batch: list[tuple[_OpenClip, Pictures]] = []
        rest = list(queued)
        room = size
        while room:
            clip, pictures = rest.pop(0)
            batch.append((clip, pictures[:room]))
            if len(pictures) > room:
                rest.insert(0, (clip, pictures[room:]))
            room -= len(batch[-1][1])
        features = self._features(np.concatenate([pictures for _, pictures in batch]))
        done = 0
        for clip, pictures in batch:
            clip.parts.append(features[done : done + len(pictures)])
            done += len(pictures)
        return rest

    def _features(self, pictures: Pictures) -> NDArray[np.float16]:
        """Pooled features ``float16 [N, D, g, g]`` of pictures ``uint8 [N, S, S, 3]``."""
        import torch

        assert self._network is not None
        began = time.perf_counter()
        with torch.inference_mode():
            maps = self._network(torch.from_numpy(pictures).to(self._device())).float().cpu()
        # Overflow becomes infinite here and is refused by the store.
        with np.errstate(over="ignore"):
            features = pool(maps.numpy(), self.spec.grid).astype(np.float16)
        self.tally.forward_seconds += time.perf_counter() - began
        return features

    def _device(self):  # type: ignore[no-untyped-def]  # torch is not imported for its type
        assert self._network is not None
        return self._network.mean.device

    def _estimate(self, clips: int) -> None:
        """Say how large and how long, from one measured batch; stop if the disk is too small.

        Raises:
            UserError: The cache would not fit on its disk.
        """
        assert self.store is not None
        blank = np.zeros((8, self.spec.size, self.spec.size, 3), np.uint8)
        self._features(blank)  # the first pass also sets things up
        began = time.perf_counter()
        features = self._features(blank)
        seconds = (time.perf_counter() - began) / len(blank) * self.spec.frames * clips
        size = features[0].nbytes * self.spec.frames * clips
        place = _existing(self.store.root)
        free = shutil.disk_usage(place).free
        self.progress.info(
            f"{clips} clips to extract: at most {size / 1e9:.2f} GB in {self.store.root}, "
            f"about {seconds / 60:.0f} min of forward passes and the time to decode"
        )
        if size > free:
            raise UserError(
                f"the features need up to {size / 1e9:.1f} GB and {place} has "
                f"{free / 1e9:.1f} GB free",
                "Choose a smaller --grid or fewer --frames, or another place with --cache.",
            )


@dataclass(slots=True)
class _OpenClip:
    """A clip whose pictures are partly encoded."""

    request: FrameRequest
    frames: Frames
    parts: list[NDArray[np.float16]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return sum(map(len, self.parts)) == len(self.frames.times)

    def entry(self) -> Entry:
        frames = self.frames
        info = EntryInfo(
            start=frames.start,
            end=frames.end,
            count=frames.count,
            width=frames.width,
            height=frames.height,
            decoder=frames.decoder,
            mode="fp32 channels_last",
            path=self.request.path,
            warnings=frames.warnings,
        )
        return Entry(np.concatenate(self.parts), frames.times, info)


def _finished(open_clips: list[_OpenClip]) -> Iterator[tuple[FrameRequest, Result]]:
    """Take the clips that are complete out of the list; they are at its front."""
    while open_clips and open_clips[0].complete:
        clip = open_clips.pop(0)
        yield clip.request, clip.entry()


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
