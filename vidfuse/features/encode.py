"""From pictures to features: batches that span clips, since a forward pass per short clip wastes
most of a machine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidfuse.errors import InputError, UserError
from vidfuse.features.pool import pool
from vidfuse.features.spec import Grid
from vidfuse.features.store import Entry, EntryInfo
from vidfuse.video.frames import FrameRequest, Frames, Pictures

if TYPE_CHECKING:
    from vidfuse.backbones.load import Backbone

CPU_BATCH, GPU_BATCH = 32, 256
Decoded = Iterable[tuple[FrameRequest, Frames | InputError]]


class Encoder:
    """Runs pictures of many clips through a backbone.

    Args:
        network: The backbone.
        grid: Side g of the map of positions that is kept.

    Attributes:
        seconds: Time spent in the backbone so far.
    """

    def __init__(self, network: Backbone, grid: Grid) -> None:
        self.network = network
        self.grid = grid
        self.device = network.mean.device
        self.batch = GPU_BATCH if self.device.type == "cuda" else CPU_BATCH
        self.seconds = 0.0

    def run(self, decoded: Decoded) -> Iterator[tuple[FrameRequest, Entry | InputError]]:
        """Features of clips, each as soon as its last picture went through; errors at once.

        Raises:
            UserError: Features of a clip are not finite, or too large for float16.
        """
        clips: deque[_OpenClip] = deque()
        waiting = 0
        for request, frames in decoded:
            if isinstance(frames, InputError):
                yield request, frames
                continue
            clips.append(_OpenClip(request, frames))
            waiting += len(frames.pictures)
            while waiting >= self.batch:
                self._forward(clips, self.batch)
                waiting -= self.batch
            yield from _finished(clips)
        if waiting:
            self._forward(clips, waiting)
        yield from _finished(clips)

    def _forward(self, clips: Iterable[_OpenClip], room: int) -> None:
        """Encode the next ``room`` pictures and hand each clip its own."""
        shares: list[tuple[_OpenClip, Pictures]] = []
        for clip in clips:
            share = clip.frames.pictures[clip.taken : clip.taken + room]
            clip.taken += len(share)
            room -= len(share)
            shares.append((clip, share))
            if not room:
                break
        features = self.features(np.concatenate([pictures for _, pictures in shares]))
        for clip, pictures in shares:
            clip.parts.append(features[: len(pictures)])
            features = features[len(pictures) :]

    def features(self, pictures: Pictures) -> NDArray[np.float16]:
        """Pooled features ``float16 [N, D, g, g]`` of pictures ``uint8 [N, S, S, 3]``."""
        import torch

        began = time.perf_counter()
        with torch.inference_mode():
            maps = self.network(torch.from_numpy(pictures).to(self.device)).float().cpu()
        # What does not fit float16 becomes infinite here, and an error with the clip's name later.
        with np.errstate(over="ignore", invalid="ignore"):
            features = pool(maps.numpy(), self.grid).astype(np.float16)
        self.seconds += time.perf_counter() - began
        return features


def check_finite(features: NDArray[np.float16], path: str) -> None:
    """Refuse features that no head can read.

    Raises:
        UserError: They are not finite, or were too large for float16.
    """
    if not np.isfinite(features).all():
        raise UserError(
            f"features of {path} do not fit float16 (or are not finite)",
            "Are these weights sound? Choose another --layer or other --weights.",
        )


@dataclass(slots=True)
class _OpenClip:
    """A clip of which ``taken`` pictures are encoded."""

    request: FrameRequest
    frames: Frames
    taken: int = 0
    parts: list[NDArray[np.float16]] = field(default_factory=list)

    def entry(self) -> Entry:
        frames, features = self.frames, np.concatenate(self.parts)
        check_finite(features, self.request.path)
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
        return Entry(features, frames.times, info)


def _finished(clips: deque[_OpenClip]) -> Iterator[tuple[FrameRequest, Entry]]:
    """Take the clips that are complete from the front."""
    while clips and clips[0].taken == len(clips[0].frames.pictures):
        clip = clips.popleft()
        yield clip.request, clip.entry()
