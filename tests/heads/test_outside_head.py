"""The head of docs/adding-a-head.md, as a package that somebody else has installed."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from vidfuse.api import list_heads
from vidfuse.heads import build_head, head_names
from vidfuse.training.config import TrainConfig
from vidfuse.training.examples import Examples
from vidfuse.training.fit import Fit, new_head

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-head.md"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The two files of the document, with the metadata that installing them leaves."""
    text = DOCUMENT.read_text("utf-8")
    (project,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (module,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "vidfuse_changes.py").write_text(module, "utf-8")
    (entry,) = re.findall(r'entry-points\."vidfuse\.heads"\]\n(.*?)\n\n', project, re.DOTALL)
    metadata = tmp_path / "vidfuse_changes-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vidfuse-changes\nVersion: 0.1.0\n", "utf-8"
    )
    target = entry.replace('"', "")
    (metadata / "entry_points.txt").write_text(f"[vidfuse.heads]\n{target}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "changes"
    sys.modules.pop("vidfuse_changes", None)


def test_it_is_found_described_and_built(installed):
    assert installed in head_names()
    (found,) = list_heads([installed], channels=8, frames=4, classes=3)
    assert found.available, found.problem
    assert found.input == "[T, D, 2, 2]"
    assert found.multiply_adds == 4 * (8 * 4 * 128) + 128 * 3
    assert found.options
    assert found.options[0].help == "Units that look at a change."
    head = build_head(installed, channels=3, grid=1, classes=2, settings={"hidden": "7"})
    assert head.settings == {"hidden": 7, "dropout": 0.5}


def test_it_keeps_the_contract(installed):
    torch.manual_seed(0)
    head = build_head(installed, channels=3, grid=2, classes=4).double().eval()
    clips = [torch.randn(length, 3, 2, 2, dtype=torch.float64) for length in (5, 1, 3)]
    padded = torch.full((3, 6, 3, 2, 2), torch.nan, dtype=torch.float64)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    logits = head(padded, torch.tensor([5, 1, 3]))
    for row, clip in zip(logits, clips, strict=True):
        torch.testing.assert_close(row, head(clip[None], torch.tensor([len(clip)]))[0])
    backwards = head(clips[0].flip(0)[None], torch.tensor([5]))[0]
    assert (logits[0] - backwards).abs().max() > 1e-4


def test_it_can_be_trained(installed):
    config = TrainConfig(head=installed, epochs=20, head_options={"hidden": 16})
    assert config.problems() == []
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    rising = torch.linspace(0, 1, 5)[:, None] * torch.tensor([-1.0, 1.0])[labels][:, None, None]
    cells = torch.tensor([1.0, -1.0, 1.0, -1.0])
    noise = 0.1 * torch.randn(32, 5, 4, generator=generator)
    features = (noise + rising * cells).view(32, 5, 1, 2, 2)
    examples = Examples.stacked(features, torch.full((32,), 5), labels)
    fit = Fit(
        new_head(config, channels=1, grid=2, classes=2),
        examples,
        examples,
        config,
        device="cpu",
        classes=2,
    )
    assert [epoch.val_accuracy for epoch in fit][-1] == 1.0
