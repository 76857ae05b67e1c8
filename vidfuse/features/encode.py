"""From pictures to features: batches that span clips, since a forward pass per short clip wastes
most of a machine.

On a CPU every core runs batches of its own with one thread, and does not wait for other cores at
each layer. So a core that a decode process uses holds up one batch and not all of them: cores go to
whichever side has work, without a fixed share.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import FP32
from vidfuse.errors import InputError, UserError
from vidfuse.features.ahead import ahead
from vidfuse.features.pool import pool_maps
from vidfuse.features.spec import Grid
from vidfuse.features.store import Entry, EntryInfo
from vidfuse.system import cores
from vidfuse.video.frames import FrameRequest, Frames, Pictures

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device

    from vidfuse.backbones.precision import Choice, Modes

# Streams hold each other up less often with larger batches, and caches hold no larger ones: with
# ResNet-50, 48 are slower than 16.
CPU_BATCH, GPU_BATCH = 32, 256
GPU_STREAMS = 2  # one batch is copied while the other is computed
Features = NDArray[np.float16]
Decoded = Iterable[tuple[FrameRequest, Frames | InputError]]


class Encoder:
    """Runs pictures of many clips through a backbone.

    Args:
        modes: The backbone.
        grid: Side g of the map of positions that is kept.
        others: Sides of other maps that are kept beside it, where the backbone's map has so many
            cells.

    Attributes:
        batch: Pictures in a forward pass at most.
        streams: Forward passes side by side.
        choice: Numerical precision of the last run, and why.
    """

    def __init__(self, modes: Modes, grid: Grid, others: Sequence[int] = ()) -> None:
        import torch

        self.modes = modes
        self.grid = grid
        self.others = others
        self.choice: Choice | None = None
        if modes.device.type == "cpu":
            self.batch = CPU_BATCH
            # Whoever sets OMP_NUM_THREADS wants no more cores to be used than that.
            self.streams = max(1, min(torch.get_num_threads(), cores()))
        else:
            self.batch = GPU_BATCH
            self.streams = GPU_STREAMS if modes.device.type == "cuda" else 1
        self._threads = ThreadPoolExecutor(
            self.streams, "forward", initializer=_begin_stream, initargs=(modes.device,)
        )
        # Batches that are under way; counted by several threads.
        self._taken = 0
        self._counting = threading.Lock()

    @property
    def idle(self) -> bool:
        """Whether a stream waits for pictures."""
        return self._taken < self.streams

    def _count(self, change: int) -> None:
        with self._counting:
            self._taken += change

    def run(
        self,
        decoded: Decoded,
        expected: int,
        many: bool = False,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Iterator[tuple[FrameRequest, list[Entry] | InputError]]:
        """Features of clips on each grid, in the order in which the clips come.

        Args:
            decoded: Pictures of clips, or why there are none. At most two batches for each stream
                are taken before they are needed.
            expected: How many pictures will come at most: few are divided among the streams.
            many: Whether there are so many clips that a calibration of the precision pays.
            waiting: Hears how long forward passes are waited for.

        Raises:
            UserError: Features in the precision that was asked for do not agree with fp32, or the
                device has too little memory for a single picture.
        """
        import torch

        clips: deque[_OpenClip] = deque()
        batch = max(1, min(self.batch, math.ceil(expected / self.streams)))
        threads = torch.get_num_threads()
        try:
            batches = self._batches(decoded, clips, batch, many, waiting)
            for shares in ahead(self._threads, self._forward, batches, 2 * self.streams, waiting):
                for clip, features in shares:
                    clip.add(features)
                yield from _finished(clips)
            yield from _finished(clips)
        finally:
            # The threads of the streams asked for one each, which new threads would take over.
            torch.set_num_threads(threads)

    def _batches(
        self,
        decoded: Decoded,
        clips: deque[_OpenClip],
        batch: int,
        many: bool,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> Iterator[_Batch]:
        """Open clips as they come, and divide their pictures into batches."""
        precision = ""
        shares: list[_Share] = []
        room = batch
        for request, frames in decoded:
            if isinstance(frames, InputError):
                clips.append(_OpenClip(request, frames))
                yield precision, []  # so that it is told at once
                continue
            pictures = frames.pictures
            if not precision:
                first = self._threads.submit(self._choose, pictures[:batch], many)
                with waiting():
                    precision = first.result()
            known = replace(frames, pictures=pictures[:0].copy())
            clip = _OpenClip(request, known, len(pictures), precision)
            clips.append(clip)
            del frames, known
            while len(pictures):
                shares.append((clip, pictures[:room]))
                room -= len(pictures[:room])
                pictures = pictures[len(shares[-1][1]) :]
                if not room:
                    self._count(1)
                    yield precision, shares
                    shares, room = [], batch
        if shares:
            self._count(1)
            yield precision, shares

    def _choose(self, pictures: Pictures, many: bool) -> str:
        import torch

        self.choice = self.modes.choose(self._on_device([pictures]), many)
        self.modes.network(self.choice.precision)  # once, before the streams need it
        if self.modes.device.type == "cuda":
            torch.cuda.synchronize(self.modes.device)  # they do not wait for each other's work
        return self.choice.precision

    def _forward(self, batch: _Batch) -> list[_Encoded]:
        """Encode a batch and hand each clip its own."""
        precision, shares = batch
        if not shares:
            return []
        try:
            features = self._features([pictures for _, pictures in shares], precision)
        finally:
            self._count(-1)
        answers, first = [], 0
        for clip, pictures in shares:
            last = first + len(pictures)
            answers.append((clip, [each[first:last] for each in features]))
            first = last
        return answers

    def features(self, pictures: Pictures) -> Features:
        """Pooled features ``float16 [N, D, g, g]`` of a few pictures ``uint8 [N, S, S, 3]``."""
        return self._features([pictures], self._choose(pictures, many=False))[0]

    def in_fp32(self, pictures: Pictures) -> list[Features]:
        """The same on each grid, without a choice of precision."""
        return self._features([pictures], FP32)

    def _features(self, parts: Sequence[Pictures], precision: str) -> list[Features]:
        """Features of a batch on each grid; in halves where the device has too little memory.

        What does not fit float16 is infinite; in a narrow precision that may come from within the
        network, so then it is computed in fp32.
        """
        import torch

        try:
            with torch.inference_mode():
                maps = self.modes.network(precision)(self._on_device(parts))
                others = [side for side in self.others if side <= min(maps.shape[-2:])]
                features: list[Features] = [
                    pool_maps(maps, grid).half().cpu().numpy() for grid in (self.grid, *others)
                ]
        except torch.OutOfMemoryError as error:
            pictures = np.concatenate(parts)
            if len(pictures) == 1:
                raise UserError(
                    f"{self.modes.device} has too little memory for this backbone",
                    "Choose a smaller --size or --backbone, or --device cpu.",
                ) from error
            halves = np.array_split(pictures, 2)
        else:
            if precision != FP32 and not all(np.isfinite(each).all() for each in features):
                return self._features(parts, FP32)
            return features
        both = [self._features([half], precision) for half in halves]
        return [np.concatenate(pair) for pair in zip(*both, strict=True)]

    def _on_device(self, parts: Sequence[Pictures]) -> Tensor:
        """Pictures side by side where they are computed; a GPU fetches them by itself."""
        import torch

        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        pinned = self.modes.device.type == "cuda"
        pictures = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        np.concatenate(parts, out=pictures.numpy())
        return pictures.to(self.modes.device, non_blocking=pinned)


def _begin_stream(device: Device) -> None:
    """What a thread of a stream does first: on a CPU it computes alone, on a GPU beside others."""
    import torch

    if device.type == "cpu":
        torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))


def check_finite(features: Features, path: str) -> None:
    """Refuse features that no head can read.

    Raises:
        InputError: They are not finite, or were too large for float16.
    """
    if not np.isfinite(features).all():
        raise InputError(
            path,
            "its features do not fit float16 (or are not finite)",
            "Are the weights sound? Choose another --layer or other --weights.",
        )


@dataclass(slots=True)
class _OpenClip:
    """A clip of whose pictures a part is encoded.

    Attributes:
        request: What was asked for.
        frames: What is known of its pictures without the pictures, or why there are none.
        pictures: How many there are.
        precision: In which they are encoded.
        parts: Their features so far, for each grid.
    """

    request: FrameRequest
    frames: Frames | InputError
    pictures: int = 0
    precision: str = ""
    parts: list[list[Features]] = field(default_factory=list)

    def add(self, features: list[Features]) -> None:
        """Take over features of its next pictures."""
        self.parts = self.parts or [[] for _ in features]
        for parts, part in zip(self.parts, features, strict=True):
            parts.append(part)

    def result(self) -> list[Entry] | InputError | None:
        """Its entries, or why there are none; None until all parts are there."""
        frames = self.frames
        if isinstance(frames, InputError):
            return frames
        if not self.parts or sum(map(len, self.parts[0])) < self.pictures:
            return None
        every = [np.concatenate(parts) for parts in self.parts]
        try:
            for features in every:
                check_finite(features, self.request.path)
        except InputError as error:
            return error
        info = EntryInfo(
            start=frames.start,
            end=frames.end,
            count=frames.count,
            width=frames.width,
            height=frames.height,
            decoder=frames.decoder,
            mode=f"{self.precision} channels_last",
            path=self.request.path,
            warnings=frames.warnings,
        )
        return [Entry(features, frames.times, info) for features in every]


_Share = tuple[_OpenClip, Pictures]
_Encoded = tuple[_OpenClip, list[Features]]
_Batch = tuple[str, list[_Share]]


def _finished(clips: deque[_OpenClip]) -> Iterator[tuple[FrameRequest, list[Entry] | InputError]]:
    """Take the clips that are complete from the front."""
    while clips and (result := clips[0].result()) is not None:
        yield clips.popleft().request, result
