"""The model file gives back what was put in, or says why it cannot."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_file import rewrite
from safetensors import safe_open
from safetensors.torch import save_file

from vidfuse.backbones import choose
from vidfuse.backbones.load import load_backbone, read_weights
from vidfuse.errors import UserError
from vidfuse.features.cache import Entry, EntryInfo
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.table import collate
from vidfuse.heads import HEADS, build_head
from vidfuse.heads.recurrent import LSTM
from vidfuse.model import SEEN_DIGITS, Model, load_model, open_model
from vidfuse.video.sampling import Sampling

SPEC = FeatureSpec("auto/1", "uniform", 4, 32, "center", "resnet18", "layer1", "random", 2)
SEEN = {"train": ["a" * SEEN_DIGITS], "val": ["b" * SEEN_DIGITS]}


def make_model(**changes: Any) -> Model:
    torch.manual_seed(0)
    head = build_head("lstm", channels=3, grid=2, classes=3, settings={"hidden": 8})
    fields: dict[str, Any] = {
        "head_name": "lstm",
        "selects_frames": False,
        "head": head.eval(),
        "classes": ["jump", "läuft", "sit down"],
        "spec": SPEC,
        "cached": replace(SPEC, frames=12),
        "sampling": "segment",
        "choice": choose("resnet18", "random", "layer1"),
        "backbone_weights": None,
        "metadata": {"protocol": "by group", "seed": 3, "versions": {"torch": "2"}},
        "seen": SEEN,
    }
    return Model(**fields | changes)


def scores(model: Model, entries: list[Entry]) -> np.ndarray[Any, Any]:
    """Class probabilities [B, C] of clips."""
    rule = Sampling.parse(model.sampling)
    return model.probabilities(*collate(entries, rule, model.spec.frames))


def clips(count: int = 5) -> list[Entry]:
    rng = np.random.default_rng(0)
    return [
        Entry(
            rng.normal(size=(length, 3, 2, 2)).astype(np.float16),
            np.arange(length) + 0.5,
            EntryInfo(0.0, float(length), length, 48, 32, "pyav", "fp32", "a.mkv", []),
        )
        for length in rng.integers(1, 5, count)
    ]


def saved(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "model.safetensors"
    make_model(**changes).save(path)
    return path


class Derived(LSTM):
    """A head of another package, without some of the settings of its base."""

    name = "derived"

    def __init__(self, channels: int, grid: int, classes: int, *, hidden: int = 8) -> None:
        super().__init__(channels, grid, classes, hidden=hidden)


def test_a_head_derived_from_ours_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "derived", f"{__name__}:Derived")
    head = build_head("derived", channels=3, grid=2, classes=3).eval()
    model = load_model(saved(tmp_path, head_name="derived", head=head))
    assert model.head.settings == {"hidden": 8}


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model, loaded = make_model(), load_model(saved(tmp_path))
    assert np.array_equal(scores(model, clips()), scores(loaded, clips()))
    for name in ("classes", "spec", "cached", "sampling", "metadata", "seen", "choice"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert loaded.head.settings == model.head.settings
    assert loaded.path == tmp_path / "model.safetensors"
    assert load_model(tmp_path).classes == model.classes
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_small_head_has_one_thread() -> None:
    model, threads = make_model(), []
    model.head.register_forward_pre_hook(lambda *_: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scores(model, clips(70))
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_probabilities_do_not_depend_on_the_batch() -> None:
    model, many = make_model(), clips(150)
    together = scores(model, many)
    alone = np.concatenate([scores(model, [clip]) for clip in many])
    assert together.shape == (150, 3)
    assert np.allclose(together, alone, atol=1e-6)
    assert np.allclose(together.sum(1), 1)


def test_the_manifest_says_what_the_design_lists(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert path.read_bytes()[8:9] == b"{", "no safetensors file"
    with safe_open(path, framework="pt") as file:
        manifest = json.loads(file.metadata()["vidfuse"])
        assert {name.split(".")[0] for name in file.keys()} == {"head"}  # noqa: SIM118
    assert manifest["format"] == 1
    assert manifest["classes"] == ["jump", "läuft", "sit down"]
    assert manifest["head"]["name"] == "lstm"
    assert manifest["head"]["settings"]["hidden"] == 8
    assert manifest["features"] == SPEC.to_dict()
    assert manifest["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert manifest["backbone"] == {
        "name": "resnet18",
        "layer": "layer1",
        "published": False,
        "included": False,
    }
    assert manifest["seen"] == SEEN
    assert manifest["protocol"] == "by group"


def test_seen_goes_by_content() -> None:
    model = make_model()
    assert model.in_training("a" * 64)
    assert model.in_training("b" * 64)
    assert not model.in_training("c" * 64)


def test_own_weights_travel_with_the_model(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(5)
    weights = tmp_path / "own.pth"
    state = {k: v for k, v in resnet18(weights=None).state_dict().items() if k[:3] != "lay"}
    state |= {k: v for k, v in resnet18(weights=None).state_dict().items() if "layer1" in k}
    torch.save(state, weights)
    choice = choose("resnet18", str(weights), "layer1")
    path = saved(tmp_path, choice=choice, backbone_weights=read_weights(weights))
    pixels = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    with torch.inference_mode():
        expected = load_backbone(choice)(pixels)
        weights.unlink()
        loaded = load_model(path)
        found = load_backbone(loaded.choice, state=loaded.backbone_weights)(pixels)
        assert torch.equal(found, expected)


def test_published_weights_stay_where_they_are(tmp_path: Path) -> None:
    loaded = load_model(saved(tmp_path, choice=choose("resnet18", None, "layer1")))
    assert loaded.choice.published
    assert loaded.backbone_weights is None


@pytest.mark.parametrize("head", ["lstm", "policy"])
def test_whether_it_chooses_frames_is_known_with_and_without_the_manifest(
    tmp_path: Path, head: str
) -> None:
    built = build_head(head, channels=3, grid=2, classes=3)
    path = saved(tmp_path, head=built)
    assert open_model(path).selects_frames is (head == "policy")
    rewrite(path, path, lambda manifest: manifest["head"].pop("chooses_frames"))
    assert open_model(path).selects_frames is (head == "policy")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, path, lambda manifest: manifest.update(format=2))
    with pytest.raises(UserError, match="newer vidfuse") as error:
        load_model(path)
    assert "upgrade" in str(error.value.hint)


def test_a_head_that_is_not_installed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, path, lambda manifest: manifest["head"].update(name="somebody-elses"))
    with pytest.raises(UserError, match="needs the head 'somebody-elses'") as error:
        load_model(path)
    assert str(path) in error.value.message
    assert "Install" in str(error.value.hint)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("classes"),
        lambda m: m.update(classes=["one"]),
        lambda m: m.update(format="new"),
        lambda m: m.update(head=[]),
        lambda m: m.update(seen=None),
        lambda m: m["features"].update(unknown=1),
        lambda m: m["head"].update(channels=7),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, change: Any) -> None:
    path = saved(tmp_path)
    rewrite(path, path, change)
    with pytest.raises(UserError, match="a damaged model file") as error:
        load_model(path)
    assert str(path) in error.value.message
    assert len(error.value.message.splitlines()) == 1


def test_damage_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    places = [*range(0, header, 41), *range(header, len(content), len(content) // 50)]
    expected = scores(load_model(path), clips())
    refused = 0
    for at in places:
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 7)
        path.write_bytes(damaged)
        try:
            loaded = load_model(path)
        except UserError:
            refused += 1
        else:  # a bit of the header's padding
            assert np.array_equal(scores(loaded, clips()), expected), at
    assert refused >= len(places) - 1
    for size in (0, 5, 8, header - 1, header, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError):
            load_model(path)


def test_what_is_no_model(tmp_path: Path) -> None:
    weights, text = tmp_path / "weights.safetensors", tmp_path / "notes.txt"
    save_file({"conv1.weight": torch.zeros(3)}, weights)
    text.write_text("not a model")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (weights, "not a vidfuse model"),
        (text, "not a model file"),
        (tmp_path / "none.safetensors", "no such model"),
        (tmp_path / "empty", "no such model"),
    ):
        with pytest.raises(UserError, match=message) as error:
            load_model(path)
        assert str(path) in error.value.message
        assert error.value.hint


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="not a model file"):
        load_model(path)


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file / "model.safetensors", Path("/proc/model.safetensors")):
        with pytest.raises(UserError, match=f"cannot write {path}"):
            make_model().save(path)
    assert list(tmp_path.iterdir()) == [file]


def test_the_model_that_was_there_stays_when_another_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(_file: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        make_model(classes=["a", "b", "c"]).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
