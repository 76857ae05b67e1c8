"""A trained model that chooses its frames: clips are opened, and only those frames are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.features.cache import Entry
from vidfuse.features.encode import Job, check_finite
from vidfuse.features.extract import Extractor
from vidfuse.features.table import collate
from vidfuse.heads.base import threads_for
from vidfuse.heads.policy import CachedSource, Episode, FrameSelectingHead, FrameSource
from vidfuse.inference.predictor import Glimpses, Prediction, Predictor
from vidfuse.model import BATCH, Model
from vidfuse.video.frames import Frames
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.sampling import Sampling


class LiveSource:
    """The candidate frames of a few clips: a `vidfuse.heads.policy.FrameSource`.

    Opening a clip reads its frame times, by which the sampling rule chooses the candidates. A frame
    is read and encoded when `at` asks for it. A clip that fails goes on as black frames, so that
    those beside it are not held up; what comes of it is to be thrown away.

    Args:
        extractor: Knows what the features mean; its cache is not used.
        files: Where the clips are opened.
        clips: At most as many as `files` has places.
        device: Where features are wanted.

    Attributes:
        lengths: How many candidates each clip has [B], 1 for one that failed.
        failures: Why clips failed, by their index.
        glimpses: What was seen of each clip.
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
        self.glimpses = [Glimpses() for _ in clips]
        self.warnings: list[list[str]] = [[] for _ in clips]
        opened = self._read(dict.fromkeys(range(len(clips)), ()))
        lengths = [opened[clip].candidates if clip in opened else 1 for clip in range(len(clips))]
        self.lengths = torch.tensor(lengths, device=device)

    def at(self, clips: Tensor, positions: Tensor) -> Tensor:
        """Features float32 [n, D, g, g] of one candidate of each of n different clips; 0 of those
        that failed.
        """
        size, engine = self.extractor.spec.size, self.extractor.encoder.engine
        asked = dict(zip(clips.tolist(), positions.tolist(), strict=True))
        frames = self._read(
            {clip: (position,) for clip, position in asked.items() if clip not in self.failures}
        )
        pixels = np.zeros((len(asked), size, size, 3), np.uint8)
        for image, clip in zip(pixels, asked, strict=True):
            if clip in frames:
                image[:] = frames[clip].pixels[0]
                self.glimpses[clip].times.append(float(frames[clip].times[0]))
                self.glimpses[clip].encoded += 1
        with self.extractor.reporter.measure("forward"):
            precision = engine.choose(pixels, many=False).precision
            (features,) = engine.features([pixels], precision, [self.extractor.spec.grid])
        for row, clip in zip(features, asked, strict=True):
            try:
                check_finite(row, self.requests[clip].path)
            except InputError as error:
                self.failures[clip] = error
                row[:] = 0
        return torch.from_numpy(features).to(self.lengths.device).float()

    def _read(self, wanted: dict[int, tuple[int, ...]]) -> dict[int, Frames]:
        """Frames of clips, by their numbers among the candidates, and what failed kept aside."""
        orders = {clip: replace(self.requests[clip], only=only) for clip, only in wanted.items()}
        with self.extractor.reporter.measure("decode"):
            answers = self.files.read_at(orders)
        found = {}
        for clip, answer in answers.items():
            if isinstance(answer, InputError):
                self.failures[clip] = answer
                continue
            found[clip] = answer
            self.glimpses[clip].decoded += answer.decoded
            self.warnings[clip] = answer.warnings
        return found


@dataclass(frozen=True)
class _Checked:
    """A source of frames for a model whose head may not fit its backbone."""

    source: FrameSource
    model: Model

    @property
    def lengths(self) -> Tensor:
        """Number of candidates of each clip."""
        return self.source.lengths

    def at(self, clips: Tensor, positions: Tensor) -> Tensor:
        """Features [n, D, g, g], which the head reads."""
        features = self.source.at(clips, positions)
        self.model.check_features(features[:, None])
        return features


class FrameSelectingPredictor(Predictor):
    """As ``Predictor``, for a model whose head chooses its frames.

    A clip whose candidates are all in the cache, as those of training are, is answered from there.
    Of any other, what the head asks for is decoded and encoded, and nothing is kept: an entry of
    the cache holds all candidates. As many clips are looked at side by side as there are workers.
    """

    pool_class = OpenClips

    def predict(self, clips: Sequence[Clip]) -> list[Prediction | InputError]:
        """Predict clips, in the order given."""
        answers: dict[Clip, Prediction | InputError] = {}
        cached: dict[Clip, Entry] = {}
        missing: list[Clip] = []
        for clip, found in self.extractor.find(list(dict.fromkeys(clips))):
            if isinstance(found, Job):
                missing.append(clip)
            elif isinstance(found, InputError):
                answers[clip] = found
            else:
                cached[clip] = found
            if len(cached) == BATCH:
                answers |= self._score(cached)
                cached.clear()
        if cached:
            answers |= self._score(cached)
        if missing:
            answers |= self._look(missing)
        return [answers[clip] for clip in clips]

    @property
    def head(self) -> FrameSelectingHead:
        """The model's head, ready to be asked."""
        head = self.model.head.to(self.device).eval()
        assert isinstance(head, FrameSelectingHead)
        return head

    def _score(self, entries: dict[Clip, Entry]) -> dict[Clip, Prediction]:
        """Predictions of clips whose candidates are in the cache."""
        rule = Sampling.parse(self.model.sampling)
        most = max(len(entry.times) for entry in entries.values())
        candidates, counts = collate(list(entries.values()), rule, most)
        self.model.check_features(candidates)
        features = torch.from_numpy(candidates).to(self.device).float()
        lengths = torch.from_numpy(counts).to(self.device)
        threads = threads_for(self.head, most, len(entries), self.device)
        with threads, torch.inference_mode():
            episode = self.head.observe(CachedSource(features, lengths))
        rows = zip(entries.items(), _scores(episode), episode.positions.tolist(), strict=True)
        return {
            clip: Prediction(
                scores,
                entry.info.warnings,
                Glimpses([float(entry.times[p]) for p in seen if p >= 0]),
            )
            for (clip, entry), scores, seen in rows
        }

    def _look(self, clips: Sequence[Clip]) -> dict[Clip, Prediction | InputError]:
        """Predictions of clips that have to be opened."""
        reporter, files = self.extractor.reporter, self.pool
        assert isinstance(files, OpenClips)
        answers: dict[Clip, Prediction | InputError] = {}
        reporter.start("Observing clips", len(clips))
        try:
            for start in range(0, len(clips), files.workers):
                part = clips[start : start + files.workers]
                answers |= self._look_at(files, part)
                reporter.advance(len(part))
        finally:
            files.release()
            reporter.finish()
        return answers

    def _look_at(
        self, files: OpenClips, clips: Sequence[Clip]
    ) -> dict[Clip, Prediction | InputError]:
        """Predictions of a few clips side by side."""
        head = self.head  # with the model, the device is known
        source = LiveSource(self.extractor, files, clips, self.device)
        # With all threads, because most of the work is the backbone's, which is done in between.
        with torch.inference_mode():
            scores = _scores(head.observe(_Checked(source, self.model)))
        answers: dict[Clip, Prediction | InputError] = {}
        for row, clip in enumerate(clips):
            if row in source.failures:
                answers[clip] = source.failures[row]
                self.extractor.stats.failures.append((clip, source.failures[row]))
            else:
                answers[clip] = Prediction(scores[row], source.warnings[row], source.glimpses[row])
                self.extractor.stats.computed += 1
        return answers


def _scores(episode: Episode) -> NDArray[np.float64]:
    """Class probabilities ``[B, C]`` at the end of an episode."""
    scores: NDArray[np.float64] = episode.answers.double().softmax(1).cpu().numpy()
    return scores
