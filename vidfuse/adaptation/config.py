"""The settings of an adaptation. Imports no torch, so that a command line can show them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from vidfuse.adaptation.budget import Budget
from vidfuse.backbones import BACKBONES, DEFAULT_BACKBONE, find_backbone
from vidfuse.errors import UserError
from vidfuse.features.spec import FeatureConfig
from vidfuse.settings import MACHINE, MachineConfig, option, parse_duration, same_option

BUNDLED = tuple(name for name, info in BACKBONES.items() if info.bundled)


@dataclass(kw_only=True)
class AdaptConfig(MachineConfig):
    """Settings of an adaptation."""

    backbone: str = option(
        DEFAULT_BACKBONE, "Bundled encoder that goes on learning.", choices=BUNDLED, envvar=False
    )
    weights: str | None = option(
        None,
        "Weights that it begins with, such as those of an earlier run.",
        unset="the bundled",
        envvar=False,
    )
    teacher: str = option(
        "efficientnet_lite0",
        "Image encoder that it learns from; vidfuse backbones lists them.",
    )
    teacher_weights: str | None = option(
        None, "The teacher's weights, a file.", unset="the published ones"
    )
    frames: int = option(8, "Frames that are taken of a clip, spread over it.", min=1, max=4096)
    fps: float = same_option(FeatureConfig, "fps")
    crops: int = option(
        4000,
        "Random crops of frames that the teacher sees, in all; where there are more frames, some "
        "clips are left out.",
        min=128,
        max=10**7,
    )
    epochs: int = option(5, "How often each crop is learned from.", min=1)
    budget: str | None = option(
        None,
        "Time for everything, such as 20m: reading takes half of it at most, then it learns.",
        unset="as long as it takes",
    )
    lr: float = option(3e-4, "Peak learning rate (AdamW, warm-up, cosine).", above=0.0)
    seed: int = option(0, "Decides crops, their order, and which clips are held out.", min=0)
    decoder: str = same_option(FeatureConfig, "decoder")
    precision: str = option(
        "auto",
        "Precision of the training. auto: bf16 where the processor has instructions for it.",
        choices=("auto", "fp32", "bf16"),
        panel=MACHINE,
    )
    max_failed: float = same_option(FeatureConfig, "max_failed")

    def problems(self) -> list[str]:
        """Problems of these settings, one line each."""
        found = super().problems()
        wrong = {problem.partition(":")[0] for problem in found}
        checks: tuple[tuple[str, Any], ...] = (
            ("teacher", self._check_teacher),
            ("budget", self.start_budget),
        )
        for name, check in checks:
            try:
                if name not in wrong:
                    check()
            except UserError as error:
                found.append(f"{name}: {error.message} {error.hint or ''}".strip())
        return found

    def start_budget(self) -> Budget:
        """The time for everything, which begins now.

        Raises:
            UserError: The text is no duration.
        """
        return Budget(self.budget, inf if self.budget is None else parse_duration(self.budget))

    def _check_teacher(self) -> None:
        name, info = find_backbone(self.teacher)
        if info.kind != "image":
            raise UserError(f"{name} sees windows of frames; a teacher sees single ones")
        if name == self.backbone and self.teacher_weights == self.weights:
            raise UserError(f"{name} is the encoder itself, of which it can learn nothing")
