"""The settings of a training run. Imports no torch, so that a command line can show them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidfuse.backbones import RANDOM_WEIGHTS
from vidfuse.errors import UserError, closest
from vidfuse.features.spec import FeatureConfig, named_backbones
from vidfuse.heads import HEADS, head_names
from vidfuse.settings import option

DEFAULT_HEAD = "lstm"
AUTO = "auto"
"""Stands for the head that inner folds choose."""
WINDOWED, DENSE = "windowed", "dense"
"""Kinds of models of long videos: of clips that slide over them, and of their moments."""
WINDOW_SECONDS, DENSE_SECONDS = 3.2, 30.0


@dataclass
class TrainConfig(FeatureConfig):
    """Settings of a training run. The defaults suit 40 to 10,000 clips with frozen features.

    TOML has no null, so 0 turns a feature off.
    """

    head: str = option(
        DEFAULT_HEAD,
        "Head that reads the frames. auto: chosen by inner folds of the training clips, together "
        "with the grid and, of several --backbone A,B,C, the encoder.",
    )
    head_options: dict[str, Any] = option({}, "Settings of the head itself, such as hidden=128.")
    layout: str | None = option(None, "How the dataset's folder is laid out.", unset="find out")
    split: str = option(
        "auto",
        "auto (the dataset's own, else by group, else random), group, random, or the number of an "
        "official split.",
    )
    out: str | None = option(
        None, "Run folder.", unset="runs/<dataset>-<head>-<time>", affects_result=False
    )
    epochs: int = option(100, "Maximum number of epochs.", min=1)
    batch_size: int = option(
        0,
        "Batch size; 0 = automatic (8 to 64).",
        min=0,
    )
    lr: float | None = option(
        None,
        "Peak learning rate (AdamW, warm-up, cosine).",
        unset="0.003 for recurrent heads, else 0.001",
        above=0.0,
    )
    weight_decay: float = option(1e-2, "Weight decay of AdamW; spares biases and norms.", min=0.0)
    dropout: float = option(0.5, "Dropout of the head, where it has one.", min=0.0, below=1.0)
    frame_dropout: float = option(
        0.0, "Share of a clip's frames left out at random in training.", min=0.0, below=1.0
    )
    mirror: bool = option(
        False,
        "Train on a mirrored view of every clip too. Not where classes tell left from right.",
    )
    views: int = option(
        0,
        "Random views of every clip that is learned from (crop, scale, colours; mirrored ones too "
        "with --mirror). Each epoch trains on one of them or on the clip itself.",
        min=0,
        later=True,
    )
    class_weights: str | None = option(
        None,
        "Against unequal classes: 'balanced' weighs each clip by the inverse of its class's "
        "frequency, 'sampler' draws rare classes more often.",
        choices=("none", "balanced", "sampler"),
        unset="none; with --timeline windowed: sampler",
    )
    label_smoothing: float = option(
        0.0, "Share of the target spread over all classes.", min=0.0, below=1.0
    )
    patience: int = option(
        20, "Stop after this many epochs without a better validation result. 0: never.", min=0
    )
    refit: bool = option(
        True,
        "Once validation has chosen the epoch, learn anew from training and validation clips "
        "together, for as many epochs. That is the model.",
    )
    warmup_epochs: int = option(
        3, "Epochs over which the learning rate rises from 0; at most half of them.", min=0
    )
    clip_norm: float = option(5.0, "Clip the gradient norm to this; 0 = off.", min=0.0)
    seed: int = option(
        0,
        "Seed of the split, initial weights, order of clips, jitter and dropout.",
        min=0,
        max=2**32 - 1,
    )

    timeline: str | None = option(
        None,
        "Learn what happens when, from long videos with annotations: 'windowed' trains a clip "
        "model, 'dense' a head that classifies each moment.",
        choices=(WINDOWED, DENSE),
        unset="learn from clips",
        later=True,
    )
    window: float | None = option(
        None,
        "Seconds of a window, or with 'dense' of a sequence.",
        unset="3.2, or as long as half of the segments exceed where that is less; of 'dense' 30",
        above=0,
        max=3600,
        envvar=False,
        later=True,
    )
    rate: float | None = option(
        None,
        "Samples per second of 'dense'.",
        unset="5, or more where half of the segments are shorter than 3.2 seconds",
        above=0,
        max=1000,
        envvar=False,
        later=True,
    )
    background: str = option(
        "background",
        "Class of what is not annotated; 'none' leaves it out.",
        envvar=False,
        later=True,
    )

    @property
    def seconds(self) -> float:
        """Seconds of a window or sequence."""
        return self.window or (DENSE_SECONDS if self.timeline == DENSE else WINDOW_SECONDS)

    def problems(self) -> list[str]:
        """List what is wrong with these settings, one line each."""
        if self.head == AUTO:
            return self._problems_of_auto()
        found = super().problems()
        # Those of other packages are looked up only where it is none of vidfuse's own.
        if (
            isinstance(self.head, str)
            and self.head not in HEADS
            and self.head not in (names := head_names())
        ):
            close = closest(self.head, names)
            guess = f", did you mean '{close}'?" if close else ""
            found.append(f"head: unknown head '{self.head}'{guess}; known: {', '.join(names)}")
        idle = {None: ("window", "rate", "background"), WINDOWED: ("rate",)}.get(self.timeline, ())
        for name in idle:
            if getattr(self, name) != getattr(TrainConfig, name):
                kind = f" {DENSE}" if name == "rate" else ""
                found.append(f"{name}: it is for --timeline{kind}")
        return found

    def with_each_backbone(self) -> list[TrainConfig]:
        """These settings with each of the encoders that ``backbone`` names, and the default head.

        Raises:
            UserError: One of them is unknown, or a file of weights is named for several.
        """
        names = named_backbones(str(self.backbone), self.weights)
        return [replace(self, backbone=name, head=DEFAULT_HEAD) for name in names]

    def _problems_of_auto(self) -> list[str]:
        found = []
        if self.head_options:
            found.append("head_options: they belong to one head, and auto may choose any")
        try:
            each = self.with_each_backbone()
        except UserError as error:
            return [*found, f"backbone: {' '.join(filter(None, (error.message, error.hint)))}"]
        found += [
            problem for config in each for problem in replace(config, head_options={}).problems()
        ]
        return list(dict.fromkeys(found))

    def to_file(self) -> dict[str, Any]:
        """Names and values as a run's ``config.toml`` holds them, to be used in any folder.

        Raises:
            UserError: TOML has no such values.
        """
        import tomli_w

        values = self.to_dict()
        if self.weights not in (None, RANDOM_WEIGHTS):
            values["weights"] = os.path.abspath(Path(self.weights).expanduser())
        for name, value in values.items():
            try:
                tomli_w.dumps({name: value}).encode()
            except (TypeError, UnicodeEncodeError) as error:  # a file's name need not be Unicode
                raise UserError(
                    f"{name}: {value!a} cannot be written to the settings of the run",
                    "Use Unicode text, numbers, and tables and lists of these.",
                ) from error
        return values
