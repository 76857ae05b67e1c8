"""One trained model at work: clips → features → class probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones import PRECISION_HELP, PRECISIONS
from vidfuse.backbones.imports import find_factory, import_torch
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features.config import cache_folder
from vidfuse.features.extract import Extractor
from vidfuse.features.identity import ContentIndex
from vidfuse.features.setup import resolve_device, weights_digest
from vidfuse.features.store import Entry, Store
from vidfuse.model import BATCH, Model, StoredModel
from vidfuse.progress import Progress
from vidfuse.settings import MOST_WORKERS, Settings, option, parse_size
from vidfuse.timing import Timings
from vidfuse.video.decoder import POLICIES
from vidfuse.video.workers import DecodePool

if TYPE_CHECKING:
    from vidfuse.backbones.load import Backbone
    from vidfuse.features.looks import Looks


class Answer(NamedTuple):
    """What a model says of a clip.

    Attributes:
        scores: Class probabilities ``[C]``.
        warnings: What went wrong without being fatal.
        looks: What was seen of it, where a model chooses its frames.
    """

    scores: NDArray[np.float64]
    warnings: list[str]
    looks: Looks | None = None


@dataclass
class InferenceConfig(Settings):
    """How a model is used."""

    device: str = option("auto", "Where to compute: auto, cpu, cuda, cuda:1, mps, ...")
    precision: str = option("auto", PRECISION_HELP, choices=PRECISIONS)
    cache: str | None = option(None, "Folder of the feature cache.", unset="the platform's")
    use_cache: bool = option(True, "Look features up, and keep them.")
    workers: int | None = option(
        None, "Clips decoded at once.", unset="one per core", min=1, max=MOST_WORKERS
    )
    time_limit: float | None = option(
        None,
        "Seconds that decoding a clip may take.",
        unset="120 and more for big files",
        above=0,
    )
    memory: str | None = option(
        None,
        "Memory that decoding a clip may take, such as 2G.",
        unset="half of the machine's divided by --workers, 1G to 4G",
        least_size="100M",
    )


AnyModel = Model | StoredModel
ALWAYS_HERE = ("auto", "cpu")  # devices


class Member:
    """One model at work, with decode processes that it keeps until it is closed.

    Nothing that needs torch is done before the first clips are being decoded.

    Args:
        card: The model, or its file, which is then read when it is needed.
        config: How it is used.
        progress: Hears of progress.
        timings: The command's clock.

    Raises:
        UserError: The device, the backbone's weights or the way of decoding that the model needs
            are not here.
    """

    pool_class: ClassVar[type[DecodePool]] = DecodePool

    def __init__(
        self, card: AnyModel, config: InferenceConfig, progress: Progress, timings: Timings
    ) -> None:
        self.card = card
        self.progress = progress
        self.config = config
        self.timings = timings
        if config.device not in ALWAYS_HERE:
            resolve_device(config.device)  # a wrong one is told before anything is done
        folder = cache_folder(config.cache)
        self.index = ContentIndex(folder if config.use_cache else None)
        if card.choice.published:
            self._check_weights(progress)
        decoder = _decoder(card)
        memory = None if config.memory is None else parse_size(config.memory)
        self.pool = self.pool_class(decoder, config.workers, config.time_limit, memory=memory)
        self.extractor = Extractor(
            spec=card.spec,
            backbone=self._build,
            decoder=decoder,
            store=Store(folder, forgiving=progress) if config.use_cache else None,
            index=self.index,
            workers=config.workers,
            time_limit=config.time_limit,
            precision=config.precision,
            progress=progress,
            timings=timings,
            pool=self.pool,
            for_all=card.facts.get("config", {}).get("grid") is None,
        )

    def close(self) -> None:
        """End the decode processes."""
        self.pool.close()

    @cached_property
    def model(self) -> Model:
        """The model with its weights."""
        if isinstance(self.card, Model):
            return self.card
        with self.timings.measure("imports"):
            import_torch()
        with self.timings.measure("model"):
            return self.card.load()

    @cached_property
    def device(self) -> str:
        """Where it computes."""
        with self.timings.measure("model"):
            return resolve_device(self.config.device, self.progress)

    def _build(self) -> Backbone:
        model = self.model
        with self.timings.measure("imports"):
            find_factory(self.card.choice.info.factory)
        with self.timings.measure("model"):
            return model.build_backbone(self.device)

    def _check_weights(self, progress: Progress) -> None:
        """The features only mean what they meant in training with the same weights."""
        digest = weights_digest(self.card.choice, self.index, progress)
        if digest != self.card.spec.weights:
            raise UserError(
                f"{self.card.choice.weights} are not the weights that "
                f"{self.card.path or 'the model'} was trained with",
                self._way_back(),
            )

    def _way_back(self) -> str:
        """How to get the weights that the model was trained with."""
        if self.card.choice.info.sha256 is None:
            return "Remove that file, so that the published weights are fetched again."
        made_by = self.card.facts.get("versions", {}).get("vidfuse", "an earlier one")
        return (
            "The bundled network is another one now. Train the model again, or use the release of\n"
            f"vidfuse that made it ({made_by})."
        )

    def run(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Answer | InputError]]:
        """The answer to each clip, in the order given.

        Features are held for a few clips at a time, so that a dataset may be of any size.
        """
        answers: dict[Clip, Answer | InputError] = {}
        waiting: dict[Clip, Entry] = {}
        for clip, result in self.extractor.run(list(dict.fromkeys(clips))):
            if isinstance(result, InputError):
                answers[clip] = result
                continue
            waiting[clip] = result
            if len(waiting) == BATCH:
                answers |= self._answers(waiting)
                waiting.clear()
        answers |= self._answers(waiting)
        yield from ((clip, answers[clip]) for clip in clips)

    def _answers(self, entries: dict[Clip, Entry]) -> dict[Clip, Answer]:
        model, device = self.model, self.device
        with self.timings.measure("head"):
            rows = model.probabilities(list(entries.values()), device)
        return {
            clip: Answer(row, entry.info.warnings)
            for (clip, entry), row in zip(entries.items(), rows, strict=True)
        }


def _decoder(model: AnyModel) -> str:
    """Name of the decode policy that a model's features were made with."""
    for name, (decode, _) in POLICIES.items():
        if decode == model.spec.decode:
            return name
    raise UserError(
        f"{model.path}: needs the decode policy '{model.spec.decode}', which this version of "
        "vidfuse does not have",
        "Use the version that the model was trained with, or train it again.",
    )
