"""The training loop: batches by step number, so that a run that was cut off goes on the same."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.distillation.agreement import agreement
from scripts.distillation.pool import ViewPool
from scripts.distillation.stages import StageGuide
from scripts.distillation.student import StagedStudent
from vidfuse.adaptation.learning import (
    Batch,
    descend,
    draw_rows,
    fit_heads,
    follow,
    make_optimizer,
    mirror,
    schedule,
)
from vidfuse.adaptation.student import normalise
from vidfuse.adaptation.views import VIEWS, resize
from vidfuse.backbones.norms import renew_statistics

MEASURED = 1000  # views that are looked at before training
Judge = Callable[[StagedStudent], dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """How a student learns; see `Student.losses` for the parts of the loss.

    Attributes:
        steps: Optimisation steps; a run that goes on may have more or fewer of them than it began
            with, and its learning rate follows.
        batch: Views in a step.
        sizes: Sides of the student's frames, in pixels; each step draws one.
        rate: Peak learning rate of AdamW.
        weight_decay: Of its weights; norms and biases have none.
        average: Share that the averaged weights keep in a step.
        forced: Stages are given the teacher's maps; see `Student.run`.
        hint: Weight of each stage's error.
        hinted: Share of the steps, from the first on, in which stages have hints.
        map: Weight of this part of the loss; likewise ``pooled``, ``logits`` and ``relation``.
        save_every: Steps between saved states and lines of the log.
        seed: Decides everything.
    """

    steps: int
    batch: int = 64
    sizes: tuple[int, ...] = (128,)
    rate: float = 1e-3
    weight_decay: float = 0.05
    average: float = 0.998
    forced: bool = False
    hint: float = 1.0
    hinted: float = 1.0
    map: float = 1.0
    pooled: float = 1.0
    logits: float = 0.5
    relation: float = 10.0
    save_every: int = 100
    seed: int = 0


def train(
    folder: Path,
    views: ViewPool,
    student: StagedStudent,
    guide: StageGuide,
    recipe: Recipe,
    judge: Judge,
) -> StagedStudent:
    """Train a student, or go on where an earlier run of the same recipe was cut off.

    Args:
        folder: Gets ``recipe.json``, ``state.pt`` and ``log.jsonl``.
        views: What to train on.
        student: Its network and heads have begun somewhere.
        guide: What its stages imitate.
        recipe: How.
        judge: Measures that are logged.

    Returns:
        The student with its weights averaged over the last steps.

    Raises:
        ValueError: The folder holds a run of another recipe.
    """
    begin(folder, recipe)
    averaged = copy.deepcopy(student)
    optimizer = make_optimizer(student, recipe.rate, recipe.weight_decay)
    state, step, seconds = folder / "state.pt", 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        student.load_state_dict(saved["student"])
        averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds = saved["step"], saved["seconds"]
    sums: dict[str, float] = {}
    began = time.monotonic() - seconds
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule(step, recipe.steps)
        batch = draw(views, step, recipe)
        hints = guide(batch[VIEWS]) if step < recipe.hinted * recipe.steps else {}
        losses = learn(student, optimizer, batch, hints, recipe)
        step += 1
        follow(averaged, student, recipe.average, step)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value / recipe.save_every
        if step % recipe.save_every == 0 or step == recipe.steps:
            seconds = time.monotonic() - began
            line = {"step": step, "seconds": round(seconds, 1)}
            line |= {name: round(value, 4) for name, value in sums.items()} | judge(averaged)
            sums = {}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            kept = {
                "student": student.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": seconds,
            }
            torch.save(kept, state.with_suffix(".part"))
            state.with_suffix(".part").rename(state)
    return averaged.eval()


def begin(folder: Path, recipe: Recipe) -> None:
    """Note the recipe of a folder's run, of which only the steps may change."""
    folder.mkdir(parents=True, exist_ok=True)
    noted, fields = folder / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    if noted.exists():
        before = json.loads(noted.read_text())
        if before | {"steps": recipe.steps} != fields:
            raise ValueError(f"{folder} holds a run of another recipe: {before}")
    noted.write_text(json.dumps(fields))


def some_views(views: ViewPool, recipe: Recipe) -> dict[str, Tensor]:
    """Views at the student's size, and the teachers' answers, to measure before training."""
    rng = np.random.default_rng(recipe.seed)
    batch = views.rows(rng.choice(views.size, min(MEASURED, views.size), replace=False))
    batch[VIEWS] = resize(batch[VIEWS], recipe.sizes[0])
    return batch


def begin_heads(student: StagedStudent, batch: Batch) -> None:
    """Fit each head, after batch norms have got the statistics of what the student makes itself."""
    renew_statistics(student.network, normalise(batch[VIEWS]))
    fit_heads(student, batch)


def judge_on(held_out: Batch, size: int) -> Judge:
    """A judge of students; see `agreement`."""
    return partial(agreement, held_out=held_out, size=size)


def learn(
    student: StagedStudent,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    hints: dict[str, Tensor],
    recipe: Recipe,
) -> dict[str, float]:
    """One step; each part of the loss before it."""
    student.train()
    with torch.autocast("cpu", torch.bfloat16):
        features, errors = student.run(batch[VIEWS], hints, forced=recipe.forced)
        losses = {} if recipe.forced else student.losses(features, batch)
    parts = [getattr(recipe, name) * each for name, each in losses.items()]
    parts += [recipe.hint * each for each in errors.values()]
    descend(student, optimizer, torch.stack(parts).sum())
    return {name: each.item() for name, each in (errors | losses).items()}


def draw(views: ViewPool, step: int, recipe: Recipe) -> Batch:
    """The batch of a step, at the student's size and mirrored or not."""
    rng = np.random.default_rng((recipe.seed, 1, step))
    batch = views.rows(draw_rows(step, views.size, recipe.batch, recipe.seed))
    batch[VIEWS] = resize(batch[VIEWS], int(rng.choice(recipe.sizes)))
    return mirror(batch) if rng.random() < 0.5 else batch
