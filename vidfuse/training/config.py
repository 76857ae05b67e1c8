"""The settings of a training run. Imports no torch, so that a command line can show them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Self, get_type_hints

from vidfuse.errors import UserError
from vidfuse.fusion import head_names

SPOKEN = {int: "a whole number", float: "a number", str: "text", dict: "a table"}


@dataclass
class TrainConfig:
    """How a head is trained. The defaults suit 40 to 10,000 clips with frozen features.

    Field names are the names of command-line options and TOML keys; each field's metadata holds
    its "help", and where they apply its "choices" or the bounds "min", "max", "above", "below".
    TOML has no null, so 0 turns a feature off.
    """

    head: str = field(default="lstm", metadata={"help": "Fusion head that reads the frames."})
    head_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Settings of the head itself, such as hidden=128."}
    )
    epochs: int = field(
        default=100, metadata={"help": "Passes over the training clips, at most.", "min": 1}
    )
    batch_size: int = field(
        default=0,
        metadata={
            "help": "Clips in a step, at most. 0 chooses 8 to 64, so that even a small dataset "
            "gets 8 steps an epoch where it can.",
            "min": 0,
        },
    )
    lr: float = field(
        default=1e-3, metadata={"help": "Highest learning rate of AdamW.", "above": 0.0}
    )
    weight_decay: float = field(
        default=1e-2,
        metadata={"help": "Weight decay of AdamW; spares biases and norms.", "min": 0.0},
    )
    dropout: float = field(
        default=0.5,
        metadata={"help": "Dropout of the head, where it has one.", "min": 0.0, "below": 1.0},
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "Against unequal classes: 'balanced' weighs each clip by the inverse of its "
            "class's frequency, 'sampler' draws rare classes more often.",
            "choices": ("none", "balanced", "sampler"),
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Share of the target spread over all classes.",
            "min": 0.0,
            "below": 1.0,
        },
    )
    patience: int = field(
        default=20,
        metadata={
            "help": "Stop after this many epochs without a better validation result. 0: never.",
            "min": 0,
        },
    )
    warmup_epochs: int = field(
        default=3,
        metadata={
            "help": "Epochs over which the learning rate rises from 0; at most half of them.",
            "min": 0,
        },
    )
    clip_norm: float = field(
        default=1.0,
        metadata={"help": "Largest norm of the gradient; a longer one is cut. 0: any.", "min": 0.0},
    )
    seed: int = field(
        default=0,
        metadata={
            "help": "Seed of initial weights, order of clips, jitter and dropout.",
            "min": 0,
            "max": 2**32 - 1,
        },
    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values, as of a TOML table, and validate.

        Raises:
            UserError: A name is unknown or a value cannot be used; lists all problems.
        """
        known = [each.name for each in fields(cls)]
        problems = []
        for name in values:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                guess = f", did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"
                problems.append(f"{name}: unknown setting{guess}")
        config = cls(**{name: value for name, value in values.items() if name in known})
        _refuse(problems + config.problems())
        return config

    def validate(self) -> None:
        """Check every field.

        Raises:
            UserError: Lists all problems at once.
        """
        _refuse(self.problems())

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each."""
        hints = get_type_hints(type(self))
        found = []
        for each in fields(self):
            problem = _problem(getattr(self, each.name), hints[each.name], each.metadata)
            if problem:
                found.append(f"{each.name}: {problem}")
        names = head_names()
        if isinstance(self.head, str) and self.head not in names:
            close = get_close_matches(self.head, names, n=1)
            guess = f", did you mean '{close[0]}'?" if close else ""
            found.append(f"head: unknown head '{self.head}'{guess}; known: {', '.join(names)}")
        return found


def _refuse(problems: list[str]) -> None:
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError(f"training settings have {count}", "\n".join(problems))


def _problem(value: Any, hint: Any, rules: Mapping[str, Any]) -> str | None:
    """What is wrong with one value, or None."""
    kind = getattr(hint, "__origin__", hint)
    accepted = (int, float) if kind is float else kind
    # A bool is an int to Python, and never one to a user.
    if isinstance(value, bool) or not isinstance(value, accepted):
        return f"{value!r} is not {SPOKEN[kind]}"
    if kind is float and not math.isfinite(value):
        return f"{value} is not a finite number"
    if "choices" in rules and value not in rules["choices"]:
        return f"'{value}' is not one of {', '.join(rules['choices'])}"
    if "min" in rules and value < rules["min"]:
        return f"{value} is below {rules['min']}"
    if "max" in rules and value > rules["max"]:
        return f"{value} is above {rules['max']}"
    if "above" in rules and value <= rules["above"]:
        return f"{value} is not above {rules['above']:g}"
    if "below" in rules and value >= rules["below"]:
        return f"{value} is not below {rules['below']:g}"
    return None
