import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Literal

import pytest

from vidfuse.errors import UnknownNameError, UserError
from vidfuse.heads import HEADS, build_head, head_class, head_names, registry
from vidfuse.heads.base import Head
from vidfuse.heads.describe import describe
from vidfuse.heads.pooling import Mean


class Choosy(Head):
    """A head of another package, with a setting of every kind."""

    name = "choosy"
    grid = 1
    order_aware = reversal_aware = False
    paper = ""

    def __init__(
        self,
        channels,
        grid,
        classes,
        *,
        mode: Literal["max", "mean", 2] = "max",
        width: int | None = None,
        scale: float = 1.0,
        flag: bool = False,
        label: str = "x",
        depth=3,
    ):
        super().__init__(channels, grid, classes)
        self.mode, self.width, self.scale = mode, width, scale
        self.flag, self.label, self.depth = flag, label, depth


@pytest.fixture
def announced(monkeypatch):
    """Announce names as another installed package would."""

    def announce(**heads):
        entries = [EntryPoint(name, value, registry.ENTRY_POINTS) for name, value in heads.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: entries)

    return announce


@pytest.fixture
def choosy(announced):
    announced(choosy=f"{__name__}:Choosy")

    def build(**settings):
        return build_head("choosy", channels=1, grid=1, classes=2, settings=settings).settings

    return build


def test_the_registry_needs_no_torch():
    code = "import sys, vidfuse.heads as f; f.head_names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_head_lists_the_known_and_the_closest():
    with pytest.raises(UnknownNameError, match=r"unknown head 'lsmt'.*'lstm'") as caught:
        head_class("lsmt")
    assert caught.value.hint == f"Known: {', '.join(sorted(HEADS))}"


def test_text_from_a_command_line_is_converted():
    settings = {"hidden": "8", "bidirectional": "true", "dropout": "0.25"}
    head = build_head("lstm", channels=2, grid=1, classes=2, settings=settings)
    assert head.settings == {
        "hidden": 8,
        "layers": 1,
        "bidirectional": True,
        "inputs": "deviations",
        "readout": "attention",
        "input_dropout": 0.5,
        "dropout": 0.25,
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"mode": "mean"}, "mean"),
        ({"mode": "2"}, 2),
        ({"width": "none"}, None),
        ({"width": None}, None),
        ({"width": "7"}, 7),
        ({"scale": 2}, 2.0),
        ({"scale": "1e-3"}, 0.001),
        ({"flag": "off"}, False),
        ({"flag": "Yes"}, True),
        ({"label": "12"}, "12"),
        ({"depth": "4"}, 4),
    ],
)
def test_values_take_the_declared_type(choosy, given, kept):
    (name,) = given
    value = choosy(**given)[name]
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": "two"}, "setting width=two is not a whole number or none"),
        ({"width": True}, "width=True is not a whole number"),
        ({"depth": 2.5}, "depth=2.5 is not a whole number"),
        ({"scale": "nan"}, "scale=nan is not a number"),
        ({"scale": True}, "scale=True is not a number"),
        ({"flag": "maybe"}, "flag=maybe is not true or false"),
        ({"flag": 1}, "flag=1 is not true or false"),
        ({"mode": "min"}, "mode=min is not one of max, mean, 2"),
        ({"label": 3}, "label=3 is not text"),
    ],
)
def test_values_of_another_type_are_refused(choosy, given, message):
    with pytest.raises(UserError, match="head 'choosy': setting") as caught:
        choosy(**given)
    assert message in caught.value.message
    assert "default" in (caught.value.hint or "")


def test_unknown_setting_lists_the_known_and_the_closest():
    with pytest.raises(UserError, match=r"no setting 'hiden'.*'hidden'") as caught:
        build_head("lstm", channels=2, grid=1, classes=2, settings={"hiden": 3})
    known = "bidirectional, dropout, hidden, input_dropout, inputs, layers, readout"
    assert caught.value.hint == f"Known: {known}"


@pytest.mark.parametrize("given", [{"hidden": "0"}, {"layers": -1}, {"dropout": 1.5}])
def test_values_out_of_range_are_refused(given):
    with pytest.raises(UserError, match="head 'lstm' cannot be built"):
        build_head("lstm", channels=2, grid=1, classes=2, settings=given)


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(Mean, "requires", ("no_such_module",))
    monkeypatch.setattr(Mean, "extra", "graph")
    with pytest.raises(UserError, match="head 'mean' needs the package no_such_module") as caught:
        build_head("mean", channels=2, grid=1, classes=2)
    assert caught.value.hint == 'Install it: pip install "vidfuse[graph]"'


def test_an_installed_head_is_found(announced):
    announced(choosy=f"{__name__}:Choosy")
    assert head_names() == sorted(["choosy", *HEADS])
    assert head_class("choosy").__name__ == "Choosy"


def test_an_installed_head_cannot_replace_a_known_one(announced):
    announced(mean=f"{__name__}:Choosy")
    assert head_class("mean") is Mean


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Head", "cannot be loaded: No module named"),
        ("collections:OrderedDict", "is not a vidfuse head"),
        ("math:pi", "is not a vidfuse head"),
    ],
)
def test_a_broken_installed_head_is_named(announced, value, message):
    announced(broken=value)
    with pytest.raises(UserError, match="head 'broken' of the package") as caught:
        head_class("broken")
    assert message in caught.value.message


class Failing(Mean):
    """A head of another package that breaks where it is told to."""

    name = "failing"

    def __init__(self, channels, grid, classes, *, early: bool = True, dropout: float = 0.5):
        if early:
            raise TypeError("no such argument\nin many words")
        super().__init__(channels, grid, classes, dropout=dropout)
        self.early = early

    def forward(self, features, lengths):
        raise IndexError("out of range")


def test_an_error_in_an_installed_head_is_its_own_and_not_vidfuse_s(announced, monkeypatch):
    announced(failing=f"{__name__}:Failing")
    told = f"TypeError in {__name__}:Failing: no such argument"
    with pytest.raises(UserError, match=f"head 'failing' cannot be built: {told}$"):
        build_head("failing", channels=2, grid=1, classes=2)
    assert told in describe("failing", channels=2, frames=2, classes=2)["problem"]
    monkeypatch.setattr(Failing.__init__, "__kwdefaults__", {"early": False, "dropout": 0.5})
    found = describe("failing", channels=2, frames=2, classes=2)
    assert not found["available"]
    assert found["problem"].endswith(f"IndexError in {__name__}:Failing: out of range")

    monkeypatch.setitem(HEADS, "failing", f"{__name__}:Failing")  # one of ours: a bug
    with pytest.raises(IndexError):
        describe("failing", channels=2, frames=2, classes=2)
