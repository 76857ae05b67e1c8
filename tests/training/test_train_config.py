import subprocess
import sys
from dataclasses import asdict

import pytest

from vidfuse.errors import UserError
from vidfuse.settings import typed_fields
from vidfuse.training.config import TrainConfig


def test_defaults_are_valid_and_explained():
    config = TrainConfig()
    config.validate()
    for each, kind, _ in typed_fields(TrainConfig):
        assert each.metadata["help"]
        assert kind in (str, int, float, bool) or each.name == "head_options"


def test_importing_it_needs_no_torch():
    code = (
        "import sys\n"
        "from vidfuse.training.config import TrainConfig\n"
        "TrainConfig().validate()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_problems_come_at_once():
    config = TrainConfig(head="lsmt", epochs=0, lr=float("nan"), class_weights="equal")
    with pytest.raises(UserError, match="4 problems") as caught:
        config.validate()
    text = str(caught.value)
    assert "head: unknown head 'lsmt', did you mean 'lstm'?" in text
    assert "epochs: 0 is below 1" in text
    assert "lr: nan is not a finite number" in text
    assert "class_weights: 'equal' is not one of none, balanced, sampler" in text


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("head", 3, "3 is not text"),
        ("head_options", "hidden=3", "'hidden=3' is not a table"),
        ("epochs", "ten", "'ten' is not a whole number"),
        ("epochs", 2.5, "2.5 is not a whole number"),
        ("epochs", True, "True is not a whole number"),
        ("batch_size", -1, "-1 is below 0"),
        ("lr", 0.0, "0.0 is not above 0"),
        ("lr", "fast", "'fast' is not a number"),
        ("weight_decay", float("inf"), "inf is not a finite number"),
        ("dropout", 1.0, "1.0 is not below 1"),
        ("label_smoothing", -0.1, "-0.1 is below 0.0"),
        ("patience", -1, "-1 is below 0"),
        ("warmup_epochs", None, "None is not a whole number"),
        ("clip_norm", -1, "-1 is below 0.0"),
        ("seed", 2**32, "4294967296 is above 4294967295"),
    ],
)
def test_each_field_is_checked(field, value, problem):
    assert TrainConfig(**{field: value}).problems() == [f"{field}: {problem}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("cache", "a\udcff"), ("out", "a\udcff"), ("weights", "~/a\udcff.pth")),
        *(("head_options", {"label": "a\ud800"}), ("head_options", {"width": None})),
    ],
)
def test_what_a_settings_file_cannot_hold(field, value):
    config = TrainConfig(**{field: value})
    assert config.problems() == []  # of a fit alone, which writes none
    with pytest.raises(UserError, match="cannot be written") as raised:
        config.to_file()
    assert raised.value.message.startswith(f"{field}: ")
    assert raised.value.message.isascii()


def test_a_whole_number_is_a_number():
    assert TrainConfig(lr=1, clip_norm=0).problems() == []


def test_from_mapping_takes_what_asdict_gives():
    config = TrainConfig(head="mean", epochs=3, head_options={"dropout": 0.1})
    assert TrainConfig.from_mapping(asdict(config)) == config


def test_from_mapping_lists_unknown_names_with_the_other_problems():
    with pytest.raises(UserError, match="2 problems") as caught:
        TrainConfig.from_mapping({"epoch": 5, "patience": -2})
    assert "epoch: unknown setting, did you mean 'epochs'?" in str(caught.value)
    assert "patience: -2 is below 0" in str(caught.value)
