"""What is extracted before a training, and by how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vidfuse
from vidfuse.backbones import load
from vidfuse.errors import UserError
from vidfuse.video import decoder, process

CHEAP = {"backbone": "resnet18", "weights": "random", "layer": "layer1", "size": 32, "frames": 4}
QUICK = {**CHEAP, "workers": 1, "epochs": 1, "head": "mean", "device": "cpu", "mirror": True}


def test_both_views_share_a_network_and_decode_processes(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(where: Any, name: str) -> None:
        original = getattr(where, name)

        def make(*arguments: Any, **more: Any) -> Any:
            made.append(name)
            return original(*arguments, **more)

        monkeypatch.setattr(where, name, make)

    counted(load, "load_backbone")
    counted(process.subprocess, "Popen")
    summary = vidfuse.train(dataset, cache=str(tmp_path), out="run", **QUICK)
    assert summary["computed"] > summary["clips"], "both views"
    assert sorted(made) == ["Popen", "load_backbone"]


def test_cached_features_need_no_decoder(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, "cache": str(tmp_path), "decoder": "pyav"}
    vidfuse.train(dataset, out="one", **settings)
    monkeypatch.setattr(decoder, "installed", lambda name: False)
    monkeypatch.setattr("vidfuse.video.workers.installed", lambda name: False)
    assert vidfuse.train(dataset, out="two", **settings)["computed"] == 0
    with pytest.raises(UserError, match="not installed"):
        vidfuse.train(dataset, out="three", **{**settings, "size": 48})
