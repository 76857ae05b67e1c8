"""The training of the bundled backbone: what it draws, what it minimises, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")

from scripts.distillation import pool as pool_module
from scripts.distillation.material import halves, split_stills, still_images
from scripts.distillation.pool import TARGETS, ViewPool, Views
from scripts.distillation.student import CHANNELS, CLASSES, HINT_CHANNELS, Student
from scripts.distillation.teachers import squeezenet
from scripts.distillation.train import Recipe, draw, mirrored, neighbour_overlap, schedule, train
from scripts.distillation.views import Zoom, mix
from vidfuse.backbones import IMAGENET_MEAN, IMAGENET_STD, choose
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.video.frames import squares

SHAPES: dict[str, tuple[int, ...]] = {name: (width, 4, 4) for name, width in CHANNELS.items()}
SHAPES |= {"hint": (HINT_CHANNELS, 8, 8), "logits": (CLASSES,)}


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ViewPool:
    """Two shards of eight random frames with random answers."""
    monkeypatch.setattr(pool_module, "SHARD", 8)
    rng = np.random.default_rng(0)
    for number in range(2):
        place = tmp_path / "pool" / f"shard{number:03d}"
        place.mkdir(parents=True)
        np.save(place / "frames.npy", rng.integers(0, 256, (8, 128, 128, 3), np.uint8))
        for name in TARGETS:
            np.save(place / f"{name}.npy", rng.random((8, *SHAPES[name])).astype(np.float16))
    return ViewPool(tmp_path / "pool")


def test_a_view_depends_on_its_number_alone() -> None:
    rng = np.random.default_rng(1)
    stills = [rng.integers(0, 256, (70, 90, 3), np.uint8) for _ in range(3)]
    views = Views(stills, stills, Zoom(0.3, 0.1), seed=3)
    assert views[5].shape == (224, 224, 3)
    assert (views[5] == Views(stills, stills, Zoom(0.3, 0.1), seed=3)[5]).all()
    assert (views[5] != views[6]).any()
    batch = np.stack([views[number] for number in range(12)])
    assert (mix(batch, np.random.default_rng(0)) == mix(batch, np.random.default_rng(0))).all()


def test_a_pass_draws_every_view_once() -> None:
    recipe = Recipe(steps=8, batch=4)
    first = np.concatenate([draw(step, 16, recipe) for step in range(4)])
    second = np.concatenate([draw(step, 16, recipe) for step in range(4, 8)])
    assert sorted(first) == sorted(second) == list(range(16))
    assert list(first) != list(second)


def test_the_rate_rises_and_falls() -> None:
    rates = [schedule(step, 1000) for step in range(1000)]
    assert rates[0] < 0.05
    assert max(rates) > 0.99
    assert rates[-1] < 1e-4


def test_mirroring_moves_columns_only() -> None:
    maps = torch.arange(32.0).view(1, 2, 4, 4)
    assert torch.equal(mirrored("hint", maps)[0, 0, 0], torch.tensor([3.0, 2.0, 1.0, 0.0]))
    pixels = torch.arange(12).view(1, 2, 2, 3)
    assert torch.equal(mirrored("frames", pixels)[0, 0], pixels[0, 0].flip(0))
    assert torch.equal(mirrored("logits", torch.ones(2, 3)), torch.ones(2, 3))


def test_the_loss_is_zero_where_everything_is_right(views: ViewPool) -> None:
    student = Student(views.statistics)
    wanted = views.rows(np.arange(8))
    said = {"logits": wanted["logits"].float()}
    for name in (*CHANNELS, "hint"):
        scale = views.statistics[name]
        mean, spread = (scale[key][:, None, None] for key in ("mean", "map_std"))
        said[name] = (wanted[name].float() - mean) / spread
    said["pooled"] = torch.cat(
        [
            (wanted[name].float().mean((2, 3)) - views.statistics[name]["mean"])
            / views.statistics[name]["pooled_std"]
            / CHANNELS[name] ** 0.5
            for name in CHANNELS
        ],
        1,
    )
    right = student.losses(said, wanted)
    assert all(value.abs() < 1e-4 for value in right.values()), right
    wrong = student.losses(
        {name: value + torch.randn_like(value) for name, value in said.items()}, wanted
    )
    assert all(wrong[name] > right[name] + 1e-5 for name in right)


def test_a_run_that_was_cut_off_goes_on_the_same(
    views: ViewPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.distillation.train.SAVE_EVERY", 2)
    held_out = views.rows(np.arange(12))
    recipe = Recipe(steps=4, batch=4)
    whole = train(tmp_path / "whole", views, held_out, recipe)

    class CutOffError(Exception):
        pass

    rows, calls = ViewPool.rows, 0

    def fail_at_third(self: ViewPool, numbers: np.ndarray) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise CutOffError
        return rows(self, numbers)

    monkeypatch.setattr(ViewPool, "rows", fail_at_third)
    with pytest.raises(CutOffError):
        train(tmp_path / "parts", views, held_out, recipe)
    monkeypatch.setattr(ViewPool, "rows", rows)
    parts = train(tmp_path / "parts", views, held_out, recipe)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    # A later stage begins where an earlier one ended, and in its units.
    later = ViewPool(tmp_path / "pool", views)
    second = train(tmp_path / "second", later, held_out, Recipe(2, 4, rate=0.0), start=whole)
    one, other = (each.heads["resnet18"].state_dict()["weight"] for each in (second, whole))
    assert torch.equal(one, other)
    assert second.statistics is views.statistics
    assert (tmp_path / "parts" / "log.jsonl").read_text().count("\n") == 2


def test_neighbours_of_a_description_are_its_own() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 8)
    assert (neighbour_overlap(vectors, vectors * 2 + 1) == 1).all()
    assert neighbour_overlap(vectors, torch.randn(50, 8)).mean() < 0.5


def test_the_bundled_network_sees_neighbours_as_a_teacher_does(reference_data) -> None:
    """On still images that were held out; a random network does not."""
    data = reference_data("weights").parent
    pixels = split_stills(still_images(data))[1]

    def features(network: torch.nn.Module, size: int) -> torch.Tensor:
        views = torch.from_numpy(squares(pixels, size))
        with torch.inference_mode():
            return network(views).mean((2, 3))

    normalised = Backbone(squeezenet(data).features, IMAGENET_MEAN, IMAGENET_STD)
    teacher = features(normalised, 224)
    bundled, randomly = (
        neighbour_overlap(features(load_backbone(choose(weights=weights)), 128), teacher).mean()
        for weights in (None, "random")
    )
    assert bundled > 0.5
    assert bundled > randomly + 0.2


def test_no_group_is_in_both_halves(reference_data) -> None:
    trained, measured = halves(reference_data("fight_surv").parent)
    assert len(trained) + len(measured) == 162
    assert not {clip.group for clip in trained} & {clip.group for clip in measured}
    assert {clip.label for clip in trained} == {clip.label for clip in measured}
