"""A model file that asks for too much, or for nonsense, is refused before anything is built."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_file import Manifest, Tensors, rewrite

import vidfuse
from vidfuse import model as module
from vidfuse.errors import UserError
from vidfuse.heads import HEADS, build_head, registry
from vidfuse.heads.pooling import Mean
from vidfuse.manifest import check_readable, check_tensors
from vidfuse.model import load_model, open_model
from vidfuse.training.config import TrainConfig
from vidfuse.training.fit import new_head

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}


@pytest.fixture(scope="session")
def trained(dataset: Path, shared_cache: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a short training."""
    out = tmp_path_factory.mktemp("trained") / "run"
    options: dict[str, Any] = {"hidden": 8}
    vidfuse.train(
        *(dataset,),
        **{**CHEAP, "cache": shared_cache, "workers": 1, "epochs": 1, "out": str(out)},
        head_options=options,
        device="cpu",
    )
    return out / "model.safetensors"


def refused(path: Path, match: str | None = None) -> str:
    with pytest.raises(UserError, match=match) as error:
        load_model(path)
    assert type(error.value).exit_code == 2
    assert str(path) in error.value.message
    assert error.value.hint
    assert "\n" not in error.value.message
    return error.value.message


def put(*keys: str, value: Any) -> Callable[[Manifest], None]:
    """Puts a value somewhere in a manifest."""

    def change(manifest: Manifest) -> None:
        *outer, last = keys
        for key in outer:
            manifest = manifest[key]
        manifest[last] = value

    return change


HUGE = [
    (("features", "frames"), 10**9),
    (("features", "frames"), 0),
    (("features", "size"), 10**6),
    (("features", "fps"), 0),
    (("features", "grid"), 65),
    (("features", "grid"), 1),
    (("cached_frames",), 10**9),
    (("cached_frames",), -1),
    (("sampling",), "stride:0"),
    (("head", "channels"), 10**9),
    (("head", "channels"), 10**30),
    (("head", "channels"), 0),
    (("head", "grid"), 10**5),
    (("head", "settings", "hidden"), 10**5),
    (("head", "settings", "hidden"), 10**30),
    (("head", "settings", "hidden"), -8),
    (("head", "settings", "hidden"), "100000"),
    (("head", "settings", "layers"), 10**9),
    (("head", "settings", "layers"), 4000),
    (("head", "settings", "dropout"), 7),
    (("head", "settings", "unknown"), 1),
    (("head", "name"), "transformer"),
    (("classes",), [f"class {number}" for number in range(10**6)]),
    (("classes",), []),
    (("classes",), ["one", "one", "two"]),
    (("classes",), ["one", "a\ud800", "two"]),
]


@pytest.mark.parametrize(("keys", "value"), HUGE, ids=[f"{k[-1]}-{str(v)[:12]}" for k, v in HUGE])
def test_what_does_not_fit_the_tensors_takes_no_memory(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Any, value: Any
) -> None:
    def build(*_arguments: Any, **_more: Any) -> None:
        pytest.fail("the head was built")  # no Exception, which would be taken for damage

    monkeypatch.setattr(module, "build_head", build)
    path = rewrite(trained, tmp_path / "model.safetensors", put(*keys, value=value))
    message = refused(path)
    assert len(message) < 500


FIELDS = [
    *(("format",), ("classes",), ("features",), ("cached_frames",), ("sampling",), ("backbone",)),
    *(
        ("seen",),
        ("seen", "train"),
        ("head",),
        ("versions",),
        ("config",),
        ("protocol",),
        ("split",),
    ),
    *(("head", name) for name in ("name", "channels", "grid", "settings", "chooses_frames")),
    *(("backbone", name) for name in ("name", "layer", "published", "included")),
    *(("head", "settings", name) for name in ("hidden", "bidirectional", "readout", "dropout")),
    *(("features", name) for name in ("decode", "sampling", "frames", "size", "crop", "backbone")),
    *(("features", name) for name in ("layer", "weights", "grid", "precision", "fps")),
]
WRONG = ["", "wrong", -1, 2.5, float("nan"), float("inf"), [], [[]], {}, {"a": 1}, [None]]


@pytest.mark.parametrize("keys", FIELDS, ids="-".join)
def test_wrong_types(trained: Path, tmp_path: Path, keys: tuple[str, ...]) -> None:
    path = tmp_path / "model.safetensors"
    for value in WRONG:
        if (keys[-1], value) in (
            *(("versions", {}), ("versions", {"a": 1}), ("config", {}), ("config", {"a": 1})),
            *(("seen", {}), ("train", []), ("fps", 2.5)),
        ):
            continue  # these can be
        texts = ("protocol", "split", "decode", "weights", "precision", "layer", "backbone")
        if keys[-1] in texts and keys != ("backbone",) and isinstance(value, str):
            continue  # text is text; what it names is looked for later
        rewrite(trained, path, put(*keys, value=value))
        refused(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("head.classifier.bias"), "'head.classifier.bias' is missing"),
        (lambda t: t.update({"head.more": torch.zeros(2)}), "its head has no 'more'"),
        (lambda t: t.update({"other": torch.zeros(2)}), "'other' belongs neither"),
        (lambda t: t.update({"backbone.conv1.weight": torch.zeros(2)}), "belongs neither"),
        (
            lambda t: t.update({"head.classifier.bias": t["head.classifier.bias"].half()}),
            r"is F16 \[3\], and its head has F32 \[3\]",
        ),
        (lambda t: t["head.classifier.bias"].fill_(torch.nan), "values that are not finite"),
        (lambda t: t["head.classifier.weight"].fill_(-torch.inf), "values that are not finite"),
    ],
)
def test_tensors_that_are_not_the_head_s(
    trained: Path, tmp_path: Path, change: Any, match: str
) -> None:
    refused(rewrite(trained, tmp_path / "model.safetensors", tensors=change), match)


def test_scores_that_are_not_finite_are_no_answer(
    trained: Path, dataset: Path, tmp_path: Path, shared_cache: str
) -> None:
    """Finite weights may still be too large; NaN is not JSON."""
    path = rewrite(
        trained,
        tmp_path / "model.safetensors",
        tensors=lambda t: t["head.classifier.weight"].copy_(
            torch.where(t["head.classifier.weight"] > 0, 3e38, -3e38)
        ),
    )
    clip = next(dataset.rglob("*.mkv"))
    (record,) = vidfuse.predict([clip], model=path, cache=shared_cache, device="cpu")
    assert not record.ok
    assert "scores of this clip are not finite" in (record.error or "")
    json.dumps(record.to_dict(), allow_nan=False)


def test_a_head_that_does_not_fit_its_backbone(
    trained: Path, dataset: Path, tmp_path: Path, shared_cache: str
) -> None:
    """Whose tensors and manifest agree; what the backbone gives is only known when it has run."""
    clip = next(dataset.rglob("*.mkv"))
    for head in ("mean", "policy"):
        torch.manual_seed(0)
        built = build_head(head, channels=7, grid=2, classes=3)

        def other(manifest: Manifest, head: str = head, settings: Any = built.settings) -> None:
            manifest["head"] |= {
                **{"name": head, "channels": 7, "settings": settings},
                "chooses_frames": head == "policy",
            }

        def swap(tensors: Tensors, state: Any = built.state_dict()) -> None:  # noqa: B008
            tensors.clear()
            tensors.update({f"head.{name}": tensor for name, tensor in state.items()})

        path = rewrite(trained, tmp_path / f"{head}.safetensors", other, swap)
        with pytest.raises(UserError, match=r"its head reads features \[7, 2, 2\]") as error:
            list(vidfuse.predict([clip], model=path, cache=shared_cache, device="cpu"))
        assert str(path) in error.value.message


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_can_be_checked_without_memory(name: str) -> None:
    pytest.importorskip("torch_geometric") if name in ("gat", "gcn") else None
    built = build_head(name, channels=6, grid=2, classes=3)
    header = {f"head.{key}": ("F32", tuple(each.shape)) for key, each in built.state_dict().items()}
    told = {"name": name, "channels": 6, "grid": 2, "settings": built.settings}
    check_tensors(told, 3, header, backbone=False)
    with pytest.raises(ValueError, match="and its head has"):
        check_tensors(told, 4, header, backbone=False)


class Waves(Mean):
    """Somebody else's head, with settings that are no sizes."""

    name = "waves"

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        trunk: str = "resnet18",
        period: int = 10_000,
        sides: list | None = None,  # type: ignore[type-arg]
    ) -> None:
        super().__init__(channels, grid, classes)
        self.trunk, self.period, self.sides = trunk, period, sides


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> str:
    entry = EntryPoint("waves", f"{__name__}:Waves", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    return "waves"


def test_settings_of_somebody_else_s_head_may_be_anything(waves: str) -> None:
    check_readable(build_head(waves, channels=6, grid=2, classes=3, settings={"trunk": "vgg16"}))


def test_a_list_in_a_text_is_no_number() -> None:
    settings = {"kernel": "3,5", "layers": 2, "hidden": 8}
    check_readable(build_head("convlstm", channels=6, grid=4, classes=3, settings=settings))


def test_a_number_in_a_text_is_one() -> None:
    built = build_head("lstm", channels=6, grid=1, classes=3, settings={"hidden": 8})
    header = {f"head.{key}": ("F32", tuple(each.shape)) for key, each in built.state_dict().items()}
    told = {"name": "lstm", "channels": 6, "grid": 1, "settings": built.settings}
    check_tensors(told | {"settings": {**built.settings, "hidden": "8"}}, 3, header, backbone=False)
    settings = {**built.settings, "hidden": "100000"}
    with pytest.raises(ValueError, match="hidden: 100000 does not fit its tensors"):
        check_tensors(told | {"settings": settings}, 3, header, backbone=False)


def test_what_could_not_be_read_again_is_told_before_the_training(waves: str) -> None:
    config = TrainConfig(head=waves)
    assert new_head(config, channels=6, grid=1, classes=2).settings["period"] == 10_000
    config.head_options["sides"] = [1, 2]
    with pytest.raises(UserError, match=r"could not be read again \(head.settings.sides: list"):
        new_head(config, channels=6, grid=1, classes=2)


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not a regular file"):
        open_model(tmp_path)


def test_a_sound_model_is_as_before(trained: Path, tmp_path: Path) -> None:
    again = load_model(rewrite(trained, tmp_path / "model.safetensors"))
    mine, theirs = again.head.state_dict(), load_model(trained).head.state_dict()
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
