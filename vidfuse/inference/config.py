"""The settings of inference. Imports no torch, so that a command line can show them."""

from __future__ import annotations

from dataclasses import dataclass

from vidfuse.settings import MACHINE, MachineConfig, option


@dataclass(kw_only=True)
class InferenceConfig(MachineConfig):
    """The settings that `predict` and `evaluate` share."""

    views: int = option(
        0,
        "Average the prediction over the clip and so many random views of it (crop, scale, "
        "colours; mirrored ones too where training had --mirror).",
        min=0,
        envvar=False,
    )
    use_cache: bool = option(
        True,
        "Look features up in the cache, and keep new ones there.",
        off="--no-cache",
        panel=MACHINE,
    )


@dataclass(kw_only=True)
class TimelineConfig(InferenceConfig):
    """The settings of ``predict``, those of timelines among them."""

    window: float | None = option(
        None,
        "Seconds of video that a decision is made from.",
        unset="as long as the clips that the model was trained on",
        above=0,
        max=3600,
        envvar=False,
    )
    step: float | None = option(
        None,
        "Seconds from the beginning of one window to that of the next.",
        unset="a quarter of the window",
        above=0,
        max=3600,
        envvar=False,
    )
    smooth: float = option(
        0.0,
        "Average scores over so many seconds before segments are made.",
        min=0,
        max=3600,
        envvar=False,
    )
    min_duration: float = option(
        0.0, "Seconds that a segment lasts at least.", min=0, max=3600, envvar=False
    )
    segment_cost: float | None = option(
        None,
        "Seconds of certainty that a segment must be worth; 0: none.",
        unset="by the length of what the model was trained on",
        min=0,
        max=3600,
        envvar=False,
    )
    threshold: float = option(
        0.0,
        "Probability that a segment reaches somewhere; 0: every moment belongs to a class.",
        min=0,
        max=1,
        envvar=False,
    )
    low_threshold: float | None = option(
        None,
        "Probability below which a segment begins and ends (hysteresis).",
        unset="--threshold",
        min=0,
        max=1,
        envvar=False,
    )
    background: str | None = option(
        None,
        "Class, or several with commas, that is no segment.",
        unset="that of what was not annotated in training",
        envvar=False,
    )

    @property
    def nothing(self) -> tuple[str, ...]:
        """The classes that ``background`` names."""
        return tuple(filter(None, (self.background or "").split(",")))


TIMELINE_FIELDS = (
    "annotate", "out", "out_format", "overwrite", "window", "step", "smooth", "min_duration",
    "segment_cost", "threshold", "low_threshold", "background",
)  # fmt: skip
"""Options that only timelines have."""
