"""The settings of inference. Imports no torch, so that a command line can show them."""

from __future__ import annotations

from dataclasses import dataclass

from vidfuse.settings import MACHINE, MachineConfig, option


@dataclass(kw_only=True)
class InferenceConfig(MachineConfig):
    """The settings that `predict` and `evaluate` share."""

    use_cache: bool = option(
        True,
        "Look features up in the cache, and keep new ones there.",
        off="--no-cache",
        panel=MACHINE,
    )
