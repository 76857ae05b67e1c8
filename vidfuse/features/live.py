"""Frames that are decoded and encoded when somebody asks for them, and not before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.features.encode import check_finite
from vidfuse.features.extract import Extractor
from vidfuse.features.looks import Looks
from vidfuse.video.frames import Frames
from vidfuse.video.open_clips import OpenClips


class LiveSource:
    """The candidate frames of a few clips: a `vidfuse.fusion.frame_source.FrameSource`.

    Opening a clip reads its timeline, by which the sampling rule chooses the candidates. A picture
    is read and encoded when `at` asks for it. A clip that fails goes on as black pictures, so that
    those beside it are not held up; what comes of it is to be thrown away.

    Args:
        extractor: Knows what the features mean; its cache is not used.
        files: Where the clips are opened.
        clips: At most as many as `files` has places.
        device: Where features are wanted.

    Attributes:
        lengths: How many candidates each clip has [B], 1 for one that failed.
        failures: Why clips failed, by their index.
        looks: What was seen of each clip.
        warnings: What went wrong with each without being fatal.
    """

    def __init__(
        self,
        extractor: Extractor,
        files: OpenClips,
        clips: Sequence[Clip],
        device: str | torch.device = "cpu",
    ) -> None:
        self.extractor = extractor
        self.files = files
        self.requests = [extractor.request(clip) for clip in clips]
        self.failures: dict[int, InputError] = {}
        self.looks = [Looks() for _ in clips]
        self.warnings: list[list[str]] = [[] for _ in clips]
        opened = self._read(dict.fromkeys(range(len(clips)), ()))
        lengths = [opened[clip].candidates if clip in opened else 1 for clip in range(len(clips))]
        self.lengths = torch.tensor(lengths, device=device)

    def at(self, clips: Tensor, positions: Tensor) -> Tensor:
        """Features float32 [n, D, g, g] of one candidate of each of n different clips; 0 of those
        that failed.
        """
        size, encoder = self.extractor.spec.size, self.extractor.encoder()
        asked = dict(zip(clips.tolist(), positions.tolist(), strict=True))
        frames = self._read(
            {clip: (position,) for clip, position in asked.items() if clip not in self.failures}
        )
        pictures = np.zeros((len(asked), size, size, 3), np.uint8)
        for picture, clip in zip(pictures, asked, strict=True):
            if clip in frames:
                picture[:] = frames[clip].pictures[0]
                self.looks[clip].times.append(float(frames[clip].times[0]))
                self.looks[clip].encoded += 1
        with self.extractor.timings.measure("forward"):
            features = encoder.features(pictures)
        for row, clip in zip(features, asked, strict=True):
            try:
                check_finite(row, self.requests[clip].path)
            except InputError as error:
                self.failures[clip] = error
                row[:] = 0
        return torch.from_numpy(features).to(self.lengths.device).float()

    def _read(self, wanted: dict[int, tuple[int, ...]]) -> dict[int, Frames]:
        """Pictures of clips, by their numbers among the candidates, and what failed kept aside."""
        orders = {clip: replace(self.requests[clip], only=only) for clip, only in wanted.items()}
        with self.extractor.timings.measure("decode"):
            answers = self.files.read_at(orders)
        found = {}
        for clip, answer in answers.items():
            if isinstance(answer, InputError):
                self.failures[clip] = answer
                continue
            found[clip] = answer
            self.looks[clip].decoded += answer.decoded
            self.warnings[clip] = answer.warnings
        return found
