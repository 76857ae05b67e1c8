"""From clips to class probabilities with one trained model or several, the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vidfuse.backbones.imports import import_torch
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.evaluation.member import Answer, AnyModel, InferenceConfig, Member
from vidfuse.features.extract import Tally
from vidfuse.features.identity import ContentIndex
from vidfuse.features.looks import Looks
from vidfuse.model import StoredModel, open_model
from vidfuse.progress import Progress
from vidfuse.timing import Timings

NOT_FINITE = "the model's scores of this clip are not finite"

__all__ = ["Inference", "InferenceConfig", "find_model"]


def find_model(named: str | Path | None, progress: Progress) -> StoredModel:
    """Open the model that the user named, or the latest run's.

    Raises:
        UserError: There is none (the hint shows the command that makes one), or it is damaged.
    """
    path = Path(named).expanduser() if named is not None else _latest_run()
    if path is None:
        raise UserError(
            "there is no model yet: no --model was given and runs/latest names none",
            "Make one with: vidfuse train DATASET",
        )
    try:
        model = open_model(path)
    except InputError as error:  # not one of the inputs: nothing was done at all
        raise UserError(error.message, error.hint) from error
    progress.info(f"Model: {model.path} ({model.head_name}, {len(model.classes)} classes)")
    return model


def _latest_run() -> Path | None:
    from vidfuse.training.runs import latest_run

    return latest_run()


class Inference:
    """One model, or an ensemble whose probabilities are averaged (late fusion).

    Each member extracts the features that it was trained on; classes are matched by name. Decode
    processes are kept from one `run` to the next, until it is closed.

    Args:
        models: At least one, or their files.
        config: How they are used.
        progress: Hears of progress.
        timings: The command's clock.

    Raises:
        UserError: The models know different classes, or one of them cannot be used here.
    """

    def __init__(
        self,
        models: Sequence[AnyModel],
        config: InferenceConfig,
        progress: Progress,
        timings: Timings,
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
        self.timings = timings
        with timings.measure("imports"):
            kinds = [_member_class(model) for model in models]
        self.members = [
            kind(model, config, progress, timings)
            for kind, model in zip(kinds, models, strict=True)
        ]

    def close(self) -> None:
        """End the decode processes."""
        for member in self.members:
            member.close()

    def prepare(self) -> None:
        """Do all that can be done before a clip is known, for there is time."""
        for member in self.members:
            member.extractor.encoder()

    def forget(self) -> None:
        """Drop what is kept of each clip for a summary at the end: there may be no end."""
        for member in self.members:
            member.extractor.tally = Tally()

    @property
    def chooses_frames(self) -> bool:
        """Whether a model chooses the frames that it looks at."""
        return any(model.chooses_frames for model in self.models)

    @property
    def index(self) -> ContentIndex:
        """Remembers content hashes."""
        return self.members[0].index

    @property
    def hashes(self) -> dict[Clip, str]:
        """Content hash of each clip so far that could be read."""
        return self.members[0].extractor.tally.hashes

    def saw(self, content: str) -> bool:
        """Whether a clip of this content was used in training or validation of any model."""
        return any(model.saw(content) for model in self.models)

    def run(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Answer | InputError]]:
        """The answer to each clip, in the order given.

        A clip that one member cannot use is an error.
        """
        for answers in zip(*(member.run(clips) for member in self.members), strict=True):
            clip = answers[0][0]
            failed = next((a for _, a in answers if isinstance(a, InputError)), None)
            if failed is not None:
                yield clip, failed
                continue
            rows = []
            warnings: dict[str, None] = {}
            looks = Looks()
            for (_, answer), model in zip(answers, self.models, strict=True):
                assert not isinstance(answer, InputError)
                rows.append(answer.scores[[model.classes.index(name) for name in self.classes]])
                warnings |= dict.fromkeys(answer.warnings)
                looks += answer.looks or Looks()
            seen = looks if self.chooses_frames else None
            scores = np.mean(rows, axis=0)
            if not np.isfinite(scores).all():  # weights may be finite and yet too large
                yield clip, InputError(clip.path, NOT_FINITE, "Train the model again.")
                continue
            yield clip, Answer(scores, list(warnings), seen)


def _member_class(model: AnyModel) -> type[Member]:
    if not model.chooses_frames:
        return Member
    import_torch()
    from vidfuse.evaluation.looking import LookingMember

    return LookingMember
