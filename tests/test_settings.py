"""Settings are checked field by field, and all problems are told at once."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from vidfuse.errors import UnknownNameError, UserError
from vidfuse.features.spec import FeatureConfig
from vidfuse.inference.config import InferenceConfig
from vidfuse.settings import MachineConfig, Settings, option, read_toml
from vidfuse.training.config import TrainConfig


@dataclass
class Example(Settings):
    count: int = option(3, "A count.", min=1, max=9)
    share: float = option(0.5, "A share.", above=0, below=1)
    name: str | None = option(None, "A name.", choices=("one", "two"))
    on: bool = option(False, "A switch.")
    table: dict[str, Any] = option({}, "A table.")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"count": 0}, "count: 0 is below 1"),
        ({"count": 10}, "count: 10 is above 9"),
        ({"count": 2.0}, "count: 2.0 is not a whole number"),
        ({"count": True}, "count: True is not a whole number"),
        ({"count": None}, "count: None is not a whole number"),
        ({"share": 0}, "share: 0 is not above 0"),
        ({"share": 1.0}, "share: 1.0 is not below 1"),
        ({"share": math.nan}, "share: nan is not a finite number"),
        ({"share": "0.5"}, "share: '0.5' is not a number"),
        ({"name": "twoo"}, "did you mean 'two'"),
        ({"on": 1}, "on: 1 is not a switch"),
        ({"table": []}, "table: [] is not a table"),
        ({"cuont": 1}, "cuont: unknown setting, did you mean 'count'"),
    ],
)
def test_what_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        Example.from_mapping(values)
    assert problem in str(error.value)


def test_what_is_taken() -> None:
    example = Example.from_mapping({"count": 9, "share": 0.1, "name": "one", "table": {"a": 1}})
    assert example == Example(9, 0.1, "one", False, {"a": 1})
    assert example.to_dict() == {
        "count": 9,
        "share": 0.1,
        "name": "one",
        "on": False,
        "table": {"a": 1},
    }
    assert "name" not in Example().to_dict(), "TOML has no null"
    assert Example.from_mapping(example.to_dict()) == example


def test_tables_are_not_shared() -> None:
    Example().table["a"] = 1
    assert Example().table == {}


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError, match="4 problems") as error:
        Example.from_mapping({"count": 0, "share": 2, "name": "x", "unknown": 1})
    assert len(str(error.value.hint).splitlines()) == 4


@pytest.mark.parametrize("cls", [FeatureConfig, TrainConfig, InferenceConfig])
def test_defaults_are_sound_and_every_field_has_its_help(cls: type[Settings]) -> None:
    assert cls().problems() == []
    assert all(field.metadata["help"].endswith(".") for field in fields(cls))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"grid": "x"}, "grid: grid 'x'"),
        ({"sampling": "unifrom"}, "sampling: unknown sampling 'unifrom'. Did you mean 'uniform'"),
        ({"sampling": "stride:0"}, "frames above 0, as in stride:4"),
        ({"sampling": "foo"}, "'foo'. Known: dense, segment, stride:N, uniform"),
        (
            {"backbone": "r3d_18", "cache_frames": 48},
            "frames needs an encoder of single frames; r3d_18 sees",
        ),
        ({"cache_frames": 32, "sampling": "segment"}, "not an odd multiple of 16"),
        ({"cache_frames": 48, "sampling": "dense"}, "needs --sampling segment"),
        ({"cache_frames": 8}, "not an odd multiple"),
        ({"backbone": "resnet51"}, "Did you mean 'resnet50'? List them with: vidfuse backbones"),
    ],
)
def test_feature_settings_that_contradict(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        FeatureConfig.from_mapping(values)
    assert problem in str(error.value)


def test_jitter_caches_three_times_the_frames() -> None:
    assert FeatureConfig().cached_frames == 16
    assert FeatureConfig(sampling="segment").cached_frames == 48
    more = FeatureConfig(cache_frames=80)
    assert (more.cached_frames, more.rule.mode, more.problems()) == (80, "segment", [])


def test_the_cache_is_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDFUSE_CACHE", "~/somewhere")
    assert MachineConfig().cache_folder == Path.home() / "somewhere"
    assert MachineConfig(cache=str(tmp_path)).cache_folder == tmp_path
    monkeypatch.delenv("VIDFUSE_CACHE")
    assert MachineConfig().cache_folder.name == "features"
    assert MachineConfig().cache_folder.is_relative_to(Path.home())


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('head = "lstm"\n')
    assert read_toml(path) == {"head": "lstm"}
    for content in (b"head = lstm", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not TOML"):
            read_toml(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(UserError, match="cannot be read"):
        read_toml(tmp_path)


@pytest.mark.parametrize("content", ["a = " + "[" * 20_000, "a = " + "9" * 5_000])
def test_toml_that_its_parser_cannot_bear(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(UserError, match="not TOML"):
        read_toml(tmp_path / "config.toml")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_configuration_is_a_small_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(UserError, match=r"cannot be read \(not a regular file\)"):
            read_toml(path)
    large = tmp_path / "large.toml"
    large.write_text("# much\n" * 200_000)
    with pytest.raises(UserError, match="too large for a configuration"):
        read_toml(large)


def test_an_unknown_name_lists_the_known_ones() -> None:
    error = UnknownNameError("head", "lsmt", ["mean", "lstm"])
    assert str(error) == "unknown head 'lsmt'. Did you mean 'lstm'?\nKnown: lstm, mean"


def test_names_of_a_table_are_text():
    with pytest.raises(UserError, match=r"head_options: .* has a name that is not text"):
        TrainConfig.from_mapping({"head_options": {5: 6}})
