"""The settings of a comparison."""

from __future__ import annotations

from dataclasses import fields

import pytest

from vidfuse.comparison.config import CompareConfig
from vidfuse.errors import UserError
from vidfuse.heads import head_names
from vidfuse.training.config import TrainConfig

SHARED = {each.name for each in fields(CompareConfig)} & {each.name for each in fields(TrainConfig)}
SHARED -= {"epochs", "seed"}  # fewer, since all heads make all of them; each repetition has its own


def test_all_means_every_head_and_mean_comes_first():
    config = CompareConfig()
    heads = config.head_list()
    assert heads[0] == "mean"
    assert sorted(heads) == head_names()
    assert config.every_head


def test_mean_is_always_compared_and_no_head_twice():
    config = CompareConfig.from_mapping({"heads": " lstm, gru ,lstm"})
    assert config.head_list() == ["mean", "lstm", "gru"]
    assert not config.every_head


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5H", 1800), (None, None)]
)
def test_budgets(text, seconds):
    assert CompareConfig(budget=text).budget_seconds() == seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "10"}, "budget: '10' is not a time such as 90s, 10m or 1h30m"),
        (
            {"backbone": "resnet18", "backbones": "resnet34"},
            "backbone: --backbones names the encoders; leave one of the two out",
        ),
        ({"backbone": "resnet18,resnet34"}, "--backbones of compare makes a table"),
        ({"budget": "0m"}, "budget: '0m' is not a time"),
        ({"budget": "-3m"}, "budget: '-3m' is not a time"),
        ({"heads": "lstn,qq"}, "heads: unknown: lstn (did you mean 'lstm'?), qq; known: "),
        ({"heads": ","}, "heads: names no head"),
        ({"backbones": "resnet18,resnet81"}, "backbones: unknown backbone 'resnet81'"),
        ({"backbones": "resnet18,nosuch"}, "'nosuch'. List them with: vidfuse backbones"),
        ({"backbones": " , "}, "backbones: names no encoder"),
        ({"backbones": 5}, "backbones: 5 is not text"),
        ({"backbones": "resnet18,vit_b_16", "size": 64}, "size: vit_b_16 takes frames of 224"),
        (
            {"backbones": "resnet18,resnet34", "weights": "own.pth"},
            "backbones: a file of weights belongs to one encoder",
        ),
        ({"lrs": "0.1;0.2"}, "lrs: '0.1;0.2' is not a list of numbers"),
        ({"lrs": "0"}, "lrs: 0 is not above 0"),
        ({"lrs": "nan"}, "lrs: 'nan' has a number that is not finite"),
        ({"dropouts": "0.5,1"}, "dropouts: each must be at least 0 and below 1"),
        ({"folds": 1}, "folds: 1 is below 2"),
        ({"seeds": 0}, "seeds: 0 is below 1"),
        ({"split": "1"}, "split: '1' is not one of auto, group, random"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(UserError) as caught:
        CompareConfig.from_mapping(settings)
    assert message in str(caught.value)


def test_a_network_by_two_names_is_compared_once():
    config = CompareConfig.from_mapping(
        {"backbones": "resnet34, mobilenet_v2 ,mobilenet_v2.IMAGENET1K_V2,resnet34"}
    )
    assert config.backbone_list() == ["resnet34", "mobilenet_v2"]


def test_all_problems_are_told_at_once():
    with pytest.raises(UserError, match="3 problems"):
        CompareConfig.from_mapping({"lrs": "x", "budget": "y", "heads": "z"})


def test_hyperparameters_are_all_pairs():
    config = CompareConfig(lrs="0.1,0.2,0.1", dropouts="0,0.5")
    assert config.hyperparameters() == [(0.1, 0.0), (0.1, 0.5), (0.2, 0.0), (0.2, 0.5)]


def test_a_fit_has_the_settings_of_the_comparison():
    config = CompareConfig(frames=4, epochs=7, weight_decay=0.3, mirror=True, backbone="resnet34")
    fit = config.training("gru", lr=0.1, dropout=0.2, seed=5)
    assert (fit.head, fit.lr, fit.dropout, fit.seed) == ("gru", 0.1, 0.2, 5)
    assert (fit.frames, fit.epochs, fit.backbone) == (4, 7, "resnet34")
    for name in SHARED:
        assert getattr(fit, name) == getattr(config, name)
    assert CompareConfig(layout="ucf101").training("gru").layout == "ucf101"
    assert fit.patience == 0, "the number of passes is the same for every head"
    fit.validate()


def test_shared_settings_have_the_defaults_of_training():
    for name in SHARED:
        if name != "class_weights":  # whose default depends on the data, which here are clips
            assert getattr(CompareConfig(), name) == getattr(TrainConfig(), name)
    assert CompareConfig().class_weights == "none"
