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
