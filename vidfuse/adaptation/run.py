"""An adaptation from beginning to end: read, measure, learn, measure, write."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from vidfuse.adaptation.agreement import Described, neighbour_overlap, predicted
from vidfuse.adaptation.budget import Budget
from vidfuse.adaptation.config import AdaptConfig
from vidfuse.adaptation.depthwise import quicken
from vidfuse.adaptation.learning import (
    descend,
    draw_rows,
    fit_heads,
    follow,
    make_optimizer,
    mirror,
    schedule,
)
from vidfuse.adaptation.material import TEACHER, Material, gather
from vidfuse.adaptation.student import Student
from vidfuse.adaptation.teacher import Teacher
from vidfuse.adaptation.views import VIEWS
from vidfuse.atomic import make_writable, write_whole
from vidfuse.backbones import BackboneChoice, choose
from vidfuse.backbones.imports import resolve_device
from vidfuse.backbones.load import load_backbone
from vidfuse.backbones.precision import supported
from vidfuse.data.clip import Clip
from vidfuse.data.content import ContentIndex
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import one_line
from vidfuse.features.spec import weights_digest
from vidfuse.progress import Reporter
from vidfuse.results import AdaptResult

BATCH = 64
MEASURED = 1000  # views that heads, and what is measured, are fitted on
FEWEST_MEASURED = 128
MEASURING = 0.1  # share of a budget for measuring once
AVERAGED = 0.99  # share that the averaged weights keep in a step
WEIGHT_DECAY = 0.05
LOSSES = {"map": 1.0, "pooled": 2.0, "relation": 10.0}
"""Weights of the parts of the loss: those of the bundled encoder's own training."""
OPTIONS = {
    "--backbone and --layer are those": "--teacher is that",
    "--backbone": "--teacher",
    "--weights": "--teacher-weights",
}
"""Options that hints on an encoder name, and the teacher's in their place."""
ADVICE = "Name a file in a folder that you can write with --out."


def adapt_encoder(
    clips: Sequence[Clip | InputError],
    config: AdaptConfig,
    out: Path,
    reporter: Reporter,
    budget: Budget,
) -> AdaptResult:
    """Go on training a bundled encoder; see ``api.adapt``."""
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: not a name of weights", "Let it end in .safetensors.")
    failures = [clip for clip in clips if isinstance(clip, InputError)]
    good = list(dict.fromkeys(clip for clip in clips if isinstance(clip, Clip)))
    _check_there(good, failures)
    make_writable(out.absolute().parent, ADVICE)
    device = resolve_device(config.device, reporter)
    narrow = config.precision == "bf16" or (
        config.precision == "auto" and "bf16" in supported(torch.device(device))
    )
    with reporter.measure("model"):
        choice = choose(config.backbone, config.weights)
        teacher = load_teacher(config, device, reporter, narrow=narrow)
        student = begin_student(choice, teacher, device)  # weights that do not fit are told here
    if tested := {clip for clip in good if clip.split == "test"}:
        # Without labels an encoder still remembers frames.
        good = [clip for clip in good if clip not in tested]
        reporter.info(f"Left out: {len(tested)} clips of the dataset's test part")
    for error in failures:
        reporter.warn(one_line(error))
    with reporter.measure("read"):
        trained, held_out, unread = gather(
            good, config, teacher, choice.info.size, reporter, budget
        )
    failures += unread

    measuring = time.monotonic()
    with reporter.measure("agreement"):
        views = MEASURED
        if budget.limited:
            views = affordable(student, trained, MEASURING * budget.seconds)
        before = agreement(student, trained, held_out, views)
    run = Training(trained, config, budget, narrow, reserve=time.monotonic() - measuring)
    with reporter.measure("train"):
        student = run.train(student, reporter)
    with reporter.measure("agreement"):
        after = agreement(student, trained, held_out, views)
    if not after["r2"] > before["r2"]:  # nor is NaN
        raise NoGainError(
            f"the encoder became no better: on {held_out.clips} clips that it did not learn from, "
            f"R² of what {config.teacher} sees was {before['r2']:.3f} and is {after['r2']:.3f}; "
            "nothing was written",
            "Give more clips, more --epochs, or another --lr.",
        )
    write(student, out, config)
    return AdaptResult.from_dict(
        {
            "out": str(out),
            "backbone": config.backbone,
            "teacher": config.teacher,
            "clips": trained.clips,
            "held_out_clips": held_out.clips,
            "crops": len(trained.views),
            "epochs": round(run.steps / run.per_epoch, 2),
            "before": before,
            "after": after,
            "failed": len(failures),
            "failures": [{"path": each.path, "error": each.reason} for each in failures],
            "timings": reporter.timings(),
        }
    )


class NoGainError(UserError):
    """All went well, and the encoder became no better."""

    exit_code = 1


def _check_there(clips: Sequence[Clip], failures: Sequence[InputError]) -> None:
    """See that there is a clip at all, before anything slow is done.

    Raises:
        UserError: There is none.
    """
    if any(clip.path.exists() for clip in clips):
        return
    reasons = [each.message for each in failures]
    reasons += [f"{clip.path}: no such file or folder" for clip in clips]
    raise UserError(
        f"no videos to learn from: {reasons[0] if reasons else 'none were given'}",
        "Give videos, a folder of them, or a list (-).",
    )


def load_teacher(config: AdaptConfig, device: str, reporter: Reporter, *, narrow: bool) -> Teacher:
    """The teacher with its weights, which are fetched first where they are published ones.

    Raises:
        UserError: What it needs is not here, or its weights do not fit.
    """
    try:
        choice = choose(config.teacher, config.teacher_weights)
        weights_digest(choice, ContentIndex(config.cache_folder), reporter)
        backbone = load_backbone(choice, device=device)
    except UserError as error:
        for option, teachers in OPTIONS.items():
            error.hint = error.hint and error.hint.replace(option, teachers)
        raise
    size = choice.info.size
    blank = torch.zeros((1, size, size, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        width = backbone(blank).shape[1]
    return Teacher(backbone, width, size=size, narrow=narrow)


def begin_student(choice: BackboneChoice, teacher: Teacher, device: str) -> Student:
    """The encoder with a head for the teacher.

    It goes on learning as it is, with batch norms folded into its convolutions: at a small rate it
    does not need them, and what it learns does not depend on the other frames of a batch.
    """
    network = load_backbone(choice).body.requires_grad_(True)
    assert isinstance(network, nn.Sequential)
    if device == "cpu":
        quicken(network)
    return Student(network, choice.info.channels, {TEACHER: teacher}).to(device)


def some_rows(material: Material, count: int, seed: int) -> NDArray[np.int64]:
    """Numbers of some of its views, in order."""
    size = len(material.views)
    rng = np.random.default_rng((seed, 3))
    return np.sort(rng.choice(size, min(count, size), replace=False))


@dataclass
class Training:
    """The training of a student.

    Attributes:
        trained: What it learns from.
        config: How.
        budget: What is left of the time for everything.
        narrow: Whether it computes in bfloat16.
        reserve: Seconds that are kept for measuring agreement at the end.
        steps: Steps that were made.
    """

    trained: Material
    config: AdaptConfig
    budget: Budget
    narrow: bool
    reserve: float = 0.0
    steps: int = 0

    @property
    def batch(self) -> int:
        """Views in a step."""
        return min(BATCH, len(self.trained.views))

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return len(self.trained.views) // self.batch

    def train(self, student: Student, reporter: Reporter) -> Student:
        """A student that has learned, with its weights averaged over the last steps.

        Raises:
            UserError: No time is left of the budget.
        """
        config, device = self.config, device_of(student)
        fit_heads(student, self.trained.rows(some_rows(self.trained, MEASURED, 0), device))
        averaged = copy.deepcopy(student)
        optimizer = make_optimizer(student, config.lr, WEIGHT_DECAY)
        most, time_left = config.epochs * self.per_epoch, self._time_left()
        if time_left <= 0:
            raise UserError(
                f"the budget of {self.budget.text} was over before the training began: "
                f"{self.budget.used():.0f} s were needed so far, and {self.reserve:.0f} s are for "
                "measuring at the end",
                "Give more time with --budget, or take fewer --crops.",
            )
        reporter.start("Learning from the teacher", most)
        try:
            while self.steps < most:
                progress = max(self.steps / most, 1 - self._time_left() / time_left)
                if progress >= 1:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * schedule(progress * most, most)
                loss = self._step(student, optimizer, device)
                self.steps += 1
                follow(averaged, student, AVERAGED, self.steps)
                reporter.advance(note=f"loss {loss:.3f}")
        finally:
            reporter.finish()
        return averaged.eval()

    def _time_left(self) -> float:
        """Seconds of the training that are left; any number above 0 where it has no budget."""
        return self.budget.left() - self.reserve if self.budget.limited else 1.0

    def _step(self, student: Student, optimizer: torch.optim.Optimizer, device: str) -> float:
        seed = self.config.seed
        numbers = draw_rows(self.steps, len(self.trained.views), self.batch, seed)
        batch = self.trained.rows(numbers, device)
        if np.random.default_rng((seed, 4, self.steps)).random() < 0.5:
            batch = mirror(batch)
        student.train()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.narrow):
            losses = student.losses(student(batch[VIEWS]), batch)
        loss = torch.stack([LOSSES[name] * each for name, each in losses.items()]).sum()
        descend(student, optimizer, loss)
        return loss.item()


def agreement(
    student: Student, trained: Material, held_out: Material, views: int
) -> dict[str, float]:
    """Measure a student's agreement with its teacher on clips that it does not learn from.

    Args:
        student: The student.
        trained: What it learns from.
        held_out: What it does not.
        views: How many of each are looked at, at most.

    Returns:
        ``r2`` of the teacher's features, averages over positions, as a linear map of the student's
        predicts them that was fitted on views to learn from; and the share of each frame's ten
        nearest ``neighbours`` that they have in common.
    """
    known = describe(student, trained, some_rows(trained, views, seed=1))
    unseen = describe(student, held_out, some_rows(held_out, views, seed=2))
    return {
        "r2": round(predicted(known, unseen), 4),
        "neighbours": round(float(neighbour_overlap(*unseen).mean()), 4),
    }


def affordable(student: Student, material: Material, seconds: float) -> int:
    """The number of views of each kind that can be described in a time, by that of a batch."""
    rows = some_rows(material, BATCH, seed=1)
    began = time.monotonic()
    describe(student, material, rows)
    each = max(time.monotonic() - began, 1e-6) / len(rows)
    return int(np.clip(seconds / (2 * each), FEWEST_MEASURED, MEASURED))


@torch.inference_mode()
def describe(student: Student, material: Material, rows: NDArray[np.int64]) -> Described:
    """Average features over positions of some views, the student's and the teacher's."""
    batch, student = material.rows(rows, device_of(student)), student.eval()
    features = torch.cat([student(part) for part in batch[VIEWS].split(BATCH)])
    return features.mean((2, 3)).cpu(), batch[TEACHER].float().mean((2, 3)).cpu()


def device_of(student: Student) -> str:
    """The device of a student."""
    return str(next(student.parameters()).device)


def write(student: Student, out: Path, config: AdaptConfig) -> None:
    """Write its weights as float16.

    Raises:
        UnwritableError: They cannot be written.
    """
    state = student.network.state_dict()
    kept = {name: value.half().cpu().contiguous() for name, value in state.items()}
    write_whole(out, save(kept, metadata={"teacher": config.teacher}), ADVICE)  # several: no order
