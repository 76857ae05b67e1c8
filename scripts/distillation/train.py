"""The training loop: batches by step number, so that a run that was cut off goes on the same."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scripts.distillation.pool import ViewPool
from scripts.distillation.student import CHANNELS, Student
from scripts.distillation.teachers import normalise

SAVE_EVERY = 250


@dataclass(frozen=True)
class Recipe:
    """What is varied between runs; see ``Student.losses`` for the parts of the loss."""

    steps: int
    batch: int = 128
    rate: float = 2e-3
    weight_decay: float = 0.05
    average: float = 0.999
    map: float = 1.0
    pooled: float = 1.0
    hint: float = 0.5
    logits: float = 0.5
    relation: float = 10.0
    seed: int = 0


def train(
    folder: Path,
    views: ViewPool,
    held_out: dict[str, Tensor],
    recipe: Recipe,
    start: Student | None = None,
) -> Student:
    """Train a student, or go on with one.

    Args:
        folder: Gets ``state.pt`` and ``log.jsonl``.
        views: What to train on.
        held_out: Frames never trained on, with the teachers' answers.
        recipe: How.
        start: A student of an earlier stage; None begins with random weights.

    Returns:
        The student with its weights averaged over the last steps.
    """
    torch.manual_seed(recipe.seed)
    student, averaged = Student(views.statistics), Student(views.statistics)
    for model in (student, averaged):
        model.to(memory_format=torch.channels_last)
    if start is not None:
        student.load_state_dict(start.state_dict())
    averaged.load_state_dict(student.state_dict())
    decayed = [p for p in student.parameters() if p.dim() > 1]
    others = [p for p in student.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=recipe.rate,
        weight_decay=0.0,
    )
    step = 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe)))
    state = folder / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        student.load_state_dict(saved["student"])
        averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    began, first = time.time(), step
    sums: dict[str, float] = {}
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule(step, recipe.steps)
        batch = views.rows(draw(step, views.size, recipe))
        if step % 2:  # teachers see mirrored frames mirrored, nearly
            batch = {name: mirrored(name, each) for name, each in batch.items()}
        student.train()
        with torch.autocast("cpu", torch.bfloat16):
            said = student(normalise(batch["frames"]).contiguous(memory_format=torch.channels_last))
        losses = student.losses(said, batch)
        loss = sum(getattr(recipe, name) * each for name, each in losses.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        step += 1
        follow(averaged, student, min(recipe.average, (1 + step) / (10 + step)))
        for name, each in losses.items():
            sums[name] = sums.get(name, 0.0) + each.item()
        if step % SAVE_EVERY == 0 or step == recipe.steps:
            line = {"step": step, "seconds": round(time.time() - began, 1)}
            line["images_per_second"] = round((step - first) * recipe.batch / line["seconds"], 1)
            line |= {name: round(each / SAVE_EVERY, 4) for name, each in sums.items()}
            line |= agreement(averaged, held_out)
            sums = {}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            torch.save(
                {
                    "student": student.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                },
                state.with_suffix(".part"),
            )
            state.with_suffix(".part").rename(state)
    return averaged.eval()


def draw(step: int, size: int, recipe: Recipe) -> np.ndarray:
    """The views of a batch: every view once per pass, in an order of its own."""
    per_pass = size // recipe.batch
    order = np.random.default_rng((recipe.seed, step // per_pass)).permutation(size)
    position = step % per_pass * recipe.batch
    return order[position : position + recipe.batch]


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / (0.03 * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def mirrored(name: str, values: Tensor) -> Tensor:
    """Frames ``[N, S, S, 3]`` and maps ``[N, D, g, g]`` left to right; the rest as it is."""
    return values.flip(2 if name == "frames" else 3) if values.dim() == 4 else values


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


@torch.inference_mode()
def agreement(student: Student, held_out: dict[str, Tensor]) -> dict[str, float]:
    """R² of the teachers' pooled features, and overlap of neighbours, on unseen frames."""
    student.eval()
    said = [
        student(normalise(pixels).contiguous(memory_format=torch.channels_last))
        for pixels in held_out["frames"].split(100)
    ]
    found: dict[str, float] = {}
    wanted = []
    for name in CHANNELS:
        scale = student.statistics[name]
        guess = torch.cat([each[name].mean((2, 3)) for each in said]) * scale["map_std"]
        truth = held_out[name].float().mean((2, 3)) - scale["mean"]
        residual = (guess - truth).pow(2).sum(0)
        found[f"r2_{name}"] = float((1 - residual / (truth - truth.mean(0)).pow(2).sum(0)).mean())
        wanted.append(truth / scale["pooled_std"] / len(scale["mean"]) ** 0.5)
    pooled = torch.cat([each["pooled"] for each in said])
    found["neighbours"] = float(neighbour_overlap(pooled, torch.cat(wanted, 1)).mean())
    return {name: round(value, 4) for name, value in found.items()}


def neighbour_overlap(first: Tensor, second: Tensor, count: int = 10) -> Tensor:
    """Share [N] of each frame's nearest neighbours that two descriptions have in common."""
    sets = []
    for vectors in (first, second):
        centred = vectors - vectors.mean(0)
        cosines = torch.nn.functional.normalize(centred / (centred.std(0) + 1e-6), dim=1)
        sets.append((cosines @ cosines.T).fill_diagonal_(-2).topk(count).indices)
    common = (sets[0][:, :, None] == sets[1][:, None, :]).any(2)
    return common.float().mean(1)
