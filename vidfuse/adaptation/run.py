"""An adaptation from beginning to end: read, measure, learn, measure, write."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vidfuse.adaptation.agreement import alignment, neighbour_overlap
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
from vidfuse.adaptation.student import Student, normalise
from vidfuse.adaptation.teacher import Teacher
from vidfuse.adaptation.views import VIEWS
from vidfuse.atomic import make_writable, write_whole
from vidfuse.backbones import BackboneChoice, choose
from vidfuse.backbones.imports import load_factory, resolve_device
from vidfuse.backbones.load import load_backbone
from vidfuse.backbones.norms import fold_norms, unfold_norms
from vidfuse.backbones.precision import supported
from vidfuse.data.clip import Clip
from vidfuse.data.content import ContentIndex
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import one_line
from vidfuse.features.spec import weights_digest
from vidfuse.progress import Reporter

BATCH = 64
MEASURED = 1000  # views that heads are fitted on
UNFOLDED = 200  # views whose statistics batch norms begin with
AVERAGED = 0.99  # share that the averaged weights keep in a step
WEIGHT_DECAY = 0.05
LOSSES = {"map": 1.0, "pooled": 2.0, "relation": 10.0}
"""Weights of the parts of the loss: those of the bundled encoder's own training."""
ADVICE = "Name a file in a folder that you can write with --out."


def adapt_encoder(
    clips: Sequence[Clip | InputError], config: AdaptConfig, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Go on training a bundled encoder; see ``api.adapt``."""
    began = time.monotonic()
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: not a name of weights", "Let it end in .safetensors.")
    make_writable(out.absolute().parent, ADVICE)
    device = resolve_device(config.device, reporter)
    narrow = config.precision == "bf16" or (
        config.precision == "auto" and "bf16" in supported(torch.device(device))
    )
    with reporter.measure("model"):
        choice = choose(config.backbone, config.weights)
        state = load_backbone(choice).body.state_dict()
        teacher = load_teacher(config, device, reporter, narrow=narrow)
    good = list(dict.fromkeys(clip for clip in clips if isinstance(clip, Clip)))
    failures = [clip for clip in clips if isinstance(clip, InputError)]
    for error in failures:
        reporter.warn(one_line(error))
    with reporter.measure("read"):
        trained, held_out, unread = gather(good, config, teacher, choice.info.size, reporter)
    failures += unread

    student = begin_student(choice, state, teacher, trained, device)
    run = Training(trained, config, began, narrow)
    with reporter.measure("agreement"):
        before = agreement(student, held_out)
    with reporter.measure("train"):
        student = run.train(student, reporter)
    with reporter.measure("agreement"):
        after = agreement(student, held_out)
    report = {
        "out": str(out),
        "backbone": config.backbone,
        "teacher": config.teacher,
        "clips": trained.clips,
        "held_out_clips": held_out.clips,
        "views": len(trained.views),
        "epochs": round(run.steps / run.per_epoch, 2),
        "before": before,
        "after": after,
        "failed": len(failures),
        "failures": [{"path": each.path, "error": each.reason} for each in failures],
    }
    if after["alignment"] <= before["alignment"]:
        raise UserError(
            f"the encoder became no better: on {held_out.clips} clips that it did not learn from, "
            f"alignment with {config.teacher} was {before['alignment']:.3f} and is "
            f"{after['alignment']:.3f}; nothing was written",
            "Give more clips, more --epochs, or another --lr.",
        )
    write(student, out, config)
    return report | {"timings": reporter.timings()}


def load_teacher(config: AdaptConfig, device: str, reporter: Reporter, *, narrow: bool) -> Teacher:
    """The teacher with its weights, which are fetched first where they are published ones.

    Raises:
        UserError: What it needs is not here, or its weights do not fit.
    """
    choice = choose(config.teacher, config.teacher_weights)
    weights_digest(choice, ContentIndex(config.cache_folder), reporter)
    backbone = load_backbone(choice, device=device)
    size = choice.info.size
    blank = torch.zeros((1, size, size, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        width = backbone(blank).shape[1]
    return Teacher(backbone, width, size=size, narrow=narrow)


def begin_student(
    choice: BackboneChoice,
    state: Mapping[str, Tensor],
    teacher: Teacher,
    trained: Material,
    device: str,
) -> Student:
    """The encoder with batch norms, which are needed for training, and a head for the teacher.

    Args:
        choice: The encoder.
        state: Its weights, into which batch norms are folded.
        teacher: Whom it learns from.
        trained: Views that batch norms take their first statistics from.
        device: Where to compute.
    """
    network = load_factory(choice.info.factory)(norm=True)
    some = trained.rows(some_rows(trained, UNFOLDED, seed=0), "cpu")
    unfold_norms(network, state, normalise(some[VIEWS]))
    if device == "cpu":
        quicken(network)
    return Student(network, choice.info.channels, {TEACHER: teacher}).to(device)


def some_rows(material: Material, count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
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
        began: When the command did, by the monotonic clock, for ``config.budget``.
        narrow: Whether it computes in bfloat16.
        steps: Steps that were made.
    """

    trained: Material
    config: AdaptConfig
    began: float
    narrow: bool
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
        most, here = config.epochs * self.per_epoch, time.monotonic()
        seconds = config.budget_seconds()
        end = None if seconds is None else self.began + seconds
        if end is not None and here >= end:
            raise UserError(
                f"the budget of {config.budget} was over before the training began, after "
                f"{here - self.began:.0f} s",
                "Give more time with --budget, or take fewer --views.",
            )
        reporter.start("Learning from the teacher", most)
        try:
            while self.steps < most:
                progress = self.steps / most
                if end is not None:
                    progress = max(progress, (time.monotonic() - here) / (end - here))
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


@torch.inference_mode()
def agreement(student: Student, unseen: Material) -> dict[str, float]:
    """How well a student agrees with its teacher on clips that it does not learn from.

    Returns:
        ``alignment`` of both networks' averages over positions, and the share of each frame's ten
        nearest ``neighbours`` that they have in common.
    """
    batch, student = unseen.rows(slice(None), device_of(student)), student.eval()
    features = torch.cat([student(part) for part in batch[VIEWS].split(BATCH)]).mean((2, 3))
    wanted = batch[TEACHER].float().mean((2, 3))
    return {
        "alignment": round(alignment(features.cpu(), wanted.cpu()), 4),
        "neighbours": round(float(neighbour_overlap(features, wanted).mean()), 4),
    }


def device_of(student: Student) -> str:
    """Where a student computes."""
    return str(next(student.parameters()).device)


def write(student: Student, out: Path, config: AdaptConfig) -> None:
    """Write its weights as float16, with batch norms folded into them.

    Raises:
        UnwritableError: They cannot be written.
    """
    state = fold_norms(student.network).state_dict()
    kept = {name: value.half().cpu().contiguous() for name, value in state.items()}
    told = {"backbone": config.backbone, "teacher": config.teacher}
    write_whole(out, save(kept, metadata=told), ADVICE)
