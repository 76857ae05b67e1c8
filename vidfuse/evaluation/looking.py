"""A trained model that chooses its frames: clips are opened, and only those frames are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.evaluation.member import Answer, Member
from vidfuse.features.live import LiveSource
from vidfuse.features.looks import Looks
from vidfuse.features.store import Entry
from vidfuse.features.table import FeatureTable
from vidfuse.fusion.choosing import ChoosingHead
from vidfuse.fusion.episodes import Episode
from vidfuse.fusion.frame_source import CachedSource, FrameSource
from vidfuse.fusion.threads import threads_for
from vidfuse.model import BATCH, Model
from vidfuse.video.open_clips import OpenClips
from vidfuse.video.sampling import Sampling


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


class LookingMember(Member):
    """As ``Member``, for a model whose head chooses its frames.

    A clip whose candidates are all in the cache, as those of training are, is answered from there.
    Of any other, what the head asks for is decoded and encoded, and nothing is kept: an entry of
    the cache holds all candidates. As many clips are looked at side by side as there are workers.
    """

    pool_class = OpenClips

    def run(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Answer | InputError]]:
        """The answer to each clip, in the order given."""
        answers: dict[Clip, Answer | InputError] = {}
        cached: dict[Clip, Entry] = {}
        missing: list[Clip] = []
        for clip, _, found in self.extractor.find(list(dict.fromkeys(clips))):
            if found is None:
                missing.append(clip)
            elif isinstance(found, InputError):
                answers[clip] = found
            else:
                cached[clip] = found
            if len(cached) == BATCH:
                answers |= self._answers(cached)
                cached.clear()
        if cached:
            answers |= self._answers(cached)
        if missing:
            answers |= self._look(missing)
        yield from ((clip, answers[clip]) for clip in clips)

    @property
    def head(self) -> ChoosingHead:
        """The model's head, ready to be asked."""
        head = self.model.head.to(self.device).eval()
        assert isinstance(head, ChoosingHead)
        return head

    def _answers(self, entries: dict[Clip, Entry]) -> dict[Clip, Answer]:
        """Answers to clips whose candidates are in the cache."""
        rule = Sampling.parse(self.model.sampling)
        table = FeatureTable.stack(list(entries.values()), rule, self.model.spec.frames)
        every = torch.arange(len(entries))
        features, lengths = (part.to(self.device) for part in table.whole(every))
        self.model.check_features(features)
        threads = threads_for(self.head, features.shape[1], len(entries), self.device)
        with threads, torch.inference_mode():
            episode = self.head.look(CachedSource(features.float(), lengths))
        rows = zip(entries.items(), _scores(episode), episode.positions.tolist(), strict=True)
        return {
            clip: Answer(
                scores, entry.info.warnings, Looks([float(entry.times[p]) for p in seen if p >= 0])
            )
            for (clip, entry), scores, seen in rows
        }

    def _look(self, clips: Sequence[Clip]) -> dict[Clip, Answer | InputError]:
        """Answers to clips that have to be opened."""
        progress, files = self.extractor.progress, self.pool
        assert isinstance(files, OpenClips)
        answers: dict[Clip, Answer | InputError] = {}
        progress.start("Looking at clips", len(clips))
        try:
            for start in range(0, len(clips), files.workers):
                part = clips[start : start + files.workers]
                answers |= self._look_at(files, part)
                progress.advance(len(part))
        finally:
            files.release()
            progress.finish()
        return answers

    def _look_at(self, files: OpenClips, clips: Sequence[Clip]) -> dict[Clip, Answer | InputError]:
        """Answers to a few clips side by side."""
        source = LiveSource(self.extractor, files, clips, self.device)
        # With all threads, because most of the work is the backbone's, which is done in between.
        with torch.inference_mode():
            scores = _scores(self.head.look(_Checked(source, self.model)))
        answers: dict[Clip, Answer | InputError] = {}
        for row, clip in enumerate(clips):
            if row in source.failures:
                answers[clip] = source.failures[row]
                self.extractor.tally.failures.append((clip, source.failures[row]))
            else:
                answers[clip] = Answer(scores[row], source.warnings[row], source.looks[row])
                self.extractor.tally.computed += 1
        return answers


def _scores(episode: Episode) -> NDArray[np.float64]:
    """Class probabilities ``[B, C]`` at the end of an episode."""
    scores: NDArray[np.float64] = episode.answers.double().softmax(1).cpu().numpy()
    return scores
