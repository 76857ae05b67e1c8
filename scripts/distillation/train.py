"""The training loop: batches by step number, so that a run that was cut off goes on the same."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scripts.distillation.pool import VIEWS, ViewPool
from scripts.distillation.stages import StageGuide
from scripts.distillation.student import Student, normalise
from scripts.distillation.views import resize
from vidfuse.backbones.norms import renew_statistics

MEASURED = 1000  # views that are looked at before training
Judge = Callable[[Student], dict[str, float]]


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
    student: Student,
    guide: StageGuide,
    recipe: Recipe,
    judge: Judge,
) -> Student:
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
    optimizer = make_optimizer(student, recipe)
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
        follow(averaged, student, min(recipe.average, (1 + step) / (10 + step)))
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


def make_optimizer(student: Student, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels only."""
    learned = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate)


def some_views(views: ViewPool, recipe: Recipe) -> dict[str, Tensor]:
    """Views at the student's size, and the teachers' answers, to measure before training."""
    rng = np.random.default_rng(recipe.seed)
    batch = views.rows(rng.choice(views.size, min(MEASURED, views.size), replace=False))
    batch[VIEWS] = resize(batch[VIEWS], recipe.sizes[0])
    return batch


@torch.no_grad()
def fit_heads(student: Student, batch: dict[str, Tensor]) -> None:
    """Begin each head with the regression from the student's map to its teacher's, after batch
    norms have got the statistics of what the student makes itself.
    """
    renew_statistics(student.network, normalise(batch[VIEWS]))
    student.eval()
    features = torch.cat([student(part) for part in batch[VIEWS].split(100)])
    for name, head in student.heads.items():
        head.fit(features, batch[name])


def learn(
    student: Student,
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
    loss = torch.stack(parts).sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimizer.step()
    return {name: each.item() for name, each in (errors | losses).items()}


def draw(views: ViewPool, step: int, recipe: Recipe) -> dict[str, Tensor]:
    """The batch of a step, at the student's size and mirrored or not.

    Teachers see mirrored frames mirrored, nearly, so their maps are mirrored too.
    """
    rng = np.random.default_rng((recipe.seed, 1, step))
    batch = views.rows(draw_rows(step, views.size, recipe))
    batch[VIEWS] = resize(batch[VIEWS], int(rng.choice(recipe.sizes)))
    if rng.random() < 0.5:
        batch = {name: each.flip(2 if name == VIEWS else 3) for name, each in batch.items()}
    return batch


def draw_rows(step: int, size: int, recipe: Recipe) -> np.ndarray:
    """The views of a batch: every view once per epoch, in an order of its own."""
    per_epoch = size // recipe.batch
    order = np.random.default_rng((recipe.seed, step // per_epoch)).permutation(size)
    position = step % per_epoch * recipe.batch
    return order[position : position + recipe.batch]


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / (0.03 * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def follow(averaged: Student, student: Student, share: float) -> None:
    """Move the average a little towards the student."""
    for mine, its in zip(
        averaged.state_dict().values(), student.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():
            mine.lerp_(its, 1 - share)
        else:
            mine.copy_(its)
