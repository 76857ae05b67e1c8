"""Train the bundled backbone by distillation.

    python -m scripts.distil_backbone DATA WORK [--out FILE]

DATA holds ``imagenet1000/``, ``odd_videos/``, ``real_clips/``, ``fight_surv/`` and ``weights/``;
docs/bundled-backbone.md says what of it is used and what is left out. WORK keeps what is done, so
that the same command goes on where it was cut off. Everything follows from fixed seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from scripts.distillation.material import Pixels, split_stills, still_images, video_frames
from scripts.distillation.pool import SHARD, ViewPool, Views, make_shard
from scripts.distillation.student import Student
from scripts.distillation.teachers import Teachers, check
from scripts.distillation.train import Recipe, train
from scripts.distillation.views import STUDENT_SIZE, TEACHER_SIZE, Zoom
from vidfuse.backbones.thin_resnet import fold_norms
from vidfuse.video.frames import squares


@dataclass(frozen=True)
class Stage:
    """A pool of views, and how the student learns from it.

    Attributes:
        name: Folder of WORK that holds it.
        shards: How many views, in units of a shard.
        frames: Frames taken of each video.
        zoom: How near the views are.
        recipe: How it learns.
    """

    name: str
    shards: int
    frames: int
    zoom: Zoom
    recipe: Recipe


STAGES = (
    Stage("near", 18, 16, Zoom(whole=0.3, smallest=0.1), Recipe(steps=5000)),
    # Random crops show things larger than whole frames do, in use, at the same number of pixels
    # (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019).
    Stage("far", 8, 32, Zoom(whole=0.7, smallest=0.35), Recipe(steps=1500, rate=5e-4, seed=1)),
)


def main() -> None:
    """Each stage makes its views and trains; the result is written."""
    arguments = parse()
    data, work = arguments.data, arguments.work
    work.mkdir(parents=True, exist_ok=True)
    student: Student | None = None
    first: ViewPool | None = None
    for stage in STAGES:
        make_views(data, work, stage)
        views = ViewPool(work / stage.name / "pool", first)
        first = first or views
        held_out = torch.load(work / "held-out.pt", weights_only=True)
        student = train(work / stage.name, views, held_out, stage.recipe, student)
    assert student is not None
    state = fold_norms(student.network).state_dict()
    halved = {name: value.half().contiguous() for name, value in state.items()}
    out = arguments.out or work / "thin_resnet.safetensors"
    save_file(halved, out)
    print(f"{out}  sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def make_views(data: Path, work: Path, stage: Stage) -> None:
    """Let the teachers, which are checked first, answer the views that are still missing."""
    pool = work / stage.name / "pool"
    missing = [n for n in range(stage.shards) if not (pool / f"shard{n:03d}").exists()]
    held_out = work / "held-out.pt"
    if not missing and held_out.exists():
        return
    teachers, pixels = Teachers(data), still_images(data)
    print(json.dumps(check(teachers, pixels)), flush=True)
    stills, unseen = split_stills(pixels)
    if not held_out.exists():
        torch.save(answers(unseen, teachers), held_out)
    frames = video_frames(data, stage.frames)
    print(f"{len(stills)} still images, {len(frames)} frames of videos", flush=True)
    views = Views(stills, frames, stage.zoom, stage.recipe.seed)
    for number in missing:
        make_shard(pool, number, views, teachers)
        print(f"{stage.name}: {(number + 1) * SHARD} views", flush=True)


def answers(pixels: list[Pixels], teachers: Teachers) -> dict[str, torch.Tensor]:
    """What the teachers say of whole frames, and the student's copies of these."""
    with torch.inference_mode():
        said: dict[str, torch.Tensor] = teachers(torch.from_numpy(squares(pixels, TEACHER_SIZE)))
    said["frames"] = torch.from_numpy(squares(pixels, STUDENT_SIZE))
    return said


if __name__ == "__main__":
    main()
