"""The settings of a comparison. Imports no torch, so that a command line can show them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from vidfuse.backbones import DEFAULT_BACKBONE
from vidfuse.errors import UnknownNameError, UserError, closest
from vidfuse.features.spec import FeatureConfig, named_backbones
from vidfuse.heads import head_names
from vidfuse.settings import option, parse_duration
from vidfuse.training.config import TrainConfig

REFERENCE = "mean"
"""The head that all others are measured against; it is always in a comparison."""
ALL = "all"


def _of_training(name: str, default: Any = MISSING) -> Any:
    """The field of ``TrainConfig`` once more, with its default or another."""
    source = next(each for each in fields(TrainConfig) if each.name == name)
    value = source.default if default is MISSING else default
    assert value is not MISSING
    return field(default=value, metadata=source.metadata)


@dataclass
class CompareConfig(FeatureConfig):
    """Settings of ``vidfuse compare``.

    ``affects_result`` says of a setting whether it affects what comes out of a single fit. Settings
    that ``TrainConfig`` has, too, are the same for all heads.
    """

    heads: str = option(
        ALL,
        "Heads to compare, with commas between, or all. mean is always one.",
        affects_result=False,
    )
    backbones: str | None = option(
        None,
        "Encoders to compare, with commas between, instead of --backbone: makes the table encoder "
        "× head.",
        unset="that of --backbone",
        affects_result=False,
    )
    seeds: int = option(
        3,
        "Number of seeds: everything is repeated that often, each time with its own folds.",
        min=1,
        affects_result=False,
    )
    folds: int = option(5, "Number of cross-validation folds, by group where known.", min=2)
    split: str = option(
        "auto",
        "How folds are made: auto (by group where groups are known), group or random.",
        choices=("auto", "group", "random"),
    )
    layout: str | None = option(None, "How the dataset's folder is laid out.", unset="find out")
    out: str | None = option(
        None,
        "Folder of results and finished fits.",
        unset="runs/compare-<dataset>",
        affects_result=False,
    )
    jobs: int | None = option(
        None,
        "Fits at once, each in its own process.",
        unset="one per core, one on a GPU",
        min=1,
        affects_result=False,
    )
    budget: str | None = option(
        None,
        "Time for all training, such as 10m or 1h30m: decides the number of epochs, at most "
        "--epochs, which is the same for every head.",
        unset="as long as it takes",
        affects_result=False,
    )
    # A fit has as many as the budget allows, which its key names.
    epochs: int = option(
        30, "Most epochs of a fit, the same for every head.", min=1, affects_result=False
    )
    orders: bool = option(
        True,
        "Measure what the order of frames is worth: test on shuffled and reversed frames, and "
        "train on shuffled ones, too. Takes up to twice the time.",
        later=True,
    )
    lrs: str = option("0.001,0.003", "Learning rates to choose from by validation.")
    dropouts: str = option("0.2,0.5", "Dropouts to choose from by validation.")
    batch_size: int = _of_training("batch_size")
    weight_decay: float = _of_training("weight_decay")
    frame_dropout: float = _of_training("frame_dropout")
    mirror: bool = _of_training("mirror")
    views: int = _of_training("views")
    class_weights: str = _of_training("class_weights", "none")
    label_smoothing: float = _of_training("label_smoothing")
    refit: bool = _of_training("refit")
    warmup_epochs: int = _of_training("warmup_epochs")
    clip_norm: float = _of_training("clip_norm")
    seed: int = option(
        0, "First seed of folds, initial weights and order of clips.", min=0, max=2**31
    )

    def problems(self) -> list[str]:
        """Problems of these settings, one line each."""
        if not isinstance(self.backbones, str):
            return self._problems_of_one()
        found = _complaints("backbones", self.backbone_list)
        if self.backbone != DEFAULT_BACKBONE:
            found.append("backbone: --backbones names the encoders; leave one of the two out")
        for name in [self.backbone] if found else self.backbone_list():
            found += replace(self, backbone=name, backbones=None).problems()
        return list(dict.fromkeys(found))

    def _problems_of_one(self) -> list[str]:
        """Problems with the encoder that ``backbone`` names."""
        found = super().problems()
        for name, read in (("heads", self.head_list), ("budget", self.budget_seconds)):
            if not any(problem.startswith(f"{name}:") for problem in found):
                found += _complaints(name, read)
        for name in ("lrs", "dropouts"):
            values, complaint = _numbers(getattr(self, name))
            if complaint:
                found.append(f"{name}: {complaint}")
            elif name == "lrs" and min(values) <= 0:
                found.append(f"lrs: {min(values):g} is not above 0")
            elif name == "dropouts" and not (min(values) >= 0 and max(values) < 1):
                found.append("dropouts: each must be at least 0 and below 1")
        return found

    def head_list(self) -> list[str]:
        """The heads that were asked for, the reference first; of ``all``, every one there is.

        Raises:
            UserError: One of them is unknown.
        """
        known = head_names()
        asked = [name.strip() for name in self.heads.split(",") if name.strip()]
        if not asked:
            raise UserError("names no head")
        if asked == [ALL]:
            asked = known
        if unknown := [_guessed(name, known) for name in asked if name not in known]:
            raise UserError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return list(dict.fromkeys((REFERENCE, *asked)))

    @property
    def every_head(self) -> bool:
        """True where all heads were asked for, and not some by name."""
        return self.heads.strip() == ALL

    def backbone_list(self) -> list[str]:
        """The encoders that were asked for; of a name twice the first.

        Raises:
            UserError: One of them is unknown, or a file of weights is named for several.
        """
        if self.backbones is None:
            return [self.backbone]
        return named_backbones(self.backbones, self.weights)

    def hyperparameters(self) -> list[tuple[float, float]]:
        """The learning rates and dropouts to choose from, as pairs."""
        return [(lr, drop) for lr in _numbers(self.lrs)[0] for drop in _numbers(self.dropouts)[0]]

    def budget_seconds(self) -> float | None:
        """Seconds for all training, None for as many as it takes.

        Raises:
            UserError: The text is no duration.
        """
        return None if self.budget is None else parse_duration(self.budget)

    def training(self, head: str, **changes: Any) -> TrainConfig:
        """Settings of one fit. All epochs are run: patience would make their number differ."""
        known = {each.name for each in fields(TrainConfig)}
        same = {each.name: getattr(self, each.name) for each in fields(self) if each.name in known}
        return TrainConfig(**{**same, "head": head, "patience": 0, **changes})


def _guessed(name: str, known: list[str]) -> str:
    """A name that is not known, with the closest one that is."""
    close = closest(name, known)
    return f"{name} (did you mean '{close}'?)" if close else name


def _complaints(name: str, read: Any) -> list[str]:
    try:
        read()
    except UserError as error:
        hint = f" {error.hint}" if isinstance(error, UnknownNameError) else ""
        return [f"{name}: {error.message}{hint}"]
    return []


def _numbers(text: Any) -> tuple[list[float], str | None]:
    """The different numbers of a list with commas, and the complaint about it if there is one."""
    try:
        values = [float(part) for part in str(text).split(",")]
    except ValueError:
        return [], f"'{text}' is not a list of numbers such as 0.1,0.2"
    if not all(abs(value) < float("inf") for value in values):
        return [], f"'{text}' has a number that is not finite"
    return list(dict.fromkeys(values)), None
