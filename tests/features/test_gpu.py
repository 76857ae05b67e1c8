"""The whole way on a GPU beside the same on the CPU; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import SPEC, entries, extractor

import vidfuse
from vidfuse.backbones import choose
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.data.clip import Clip
from vidfuse.features.cache import Entry
from vidfuse.progress import Reporter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def on_gpu() -> Backbone:
    return load_backbone(choose("resnet18", "random", SPEC.layer), device="cuda")


def cosine(one: Entry, other: Entry) -> float:
    """Least cosine between the features of a frame in two entries."""
    mine, theirs = (torch.from_numpy(each.features).float().flatten(1) for each in (one, other))
    return torch.cosine_similarity(mine, theirs).min().item()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_features_are_those_of_the_cpu(
    make_clip: Any, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """With batches of 3 frames, so that both streams have many of them under way."""
    monkeypatch.setattr("vidfuse.backbones.engine.GPU_BATCH", 3)
    clips = [Clip(make_clip(f"{seed}.mkv", seed=seed, frames=6)) for seed in range(40)]
    expected = entries(extractor(None), clips)
    run = extractor(None, backbone=on_gpu, precision=precision)
    assert run.encoder.engine.streams == 2
    for _ in range(3):
        found = entries(run, clips)
        assert min(cosine(found[clip], expected[clip]) for clip in clips) > 0.999


def test_a_batch_too_large_for_its_memory_is_divided() -> None:
    engine = extractor(None, backbone=on_gpu, precision="fp32").encoder.engine
    pixels = np.random.default_rng(0).integers(0, 256, (64, 512, 512, 3), np.uint8)
    expected = engine.features([pixels], "fp32", [2])[0]  # its first maps alone take 1.1 GB
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(6e8 / total)
    try:
        found = engine.features([pixels], "fp32", [2])[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.allclose(found.astype(np.float32), expected.astype(np.float32), atol=1e-2)


@pytest.mark.parametrize("head", ["lstm", "policy"])
def test_a_model_trained_on_a_gpu_answers_as_on_the_cpu(
    dataset: Path, tmp_path: Path, head: Any
) -> None:
    trained = vidfuse.train(
        dataset, head=head, epochs=3, frames=4, out=str(tmp_path / "run"), device="cuda"
    )
    clips = sorted(dataset.rglob("*.mkv"))[:6]
    options: dict[str, Any] = {"model": trained.run, "use_cache": False}
    expected = list(vidfuse.predict(clips, device="cpu", **options))
    found = list(vidfuse.predict(clips, device="cuda", **options))
    for one, other in zip(expected, found, strict=True):
        assert (one.ok, other.ok) == (True, True)
        scores = {each.label: each.score for each in other.top}
        assert {each.label: each.score for each in one.top} == pytest.approx(scores, abs=0.05)


def test_a_run_goes_on_from_a_gpu_to_the_cpu(dataset: Path, tmp_path: Path) -> None:
    class Stopped(Reporter):
        """Ctrl-C after the second epoch."""

        epochs = 0

        def advance(self, steps: int = 1, note: str = "") -> None:
            self.epochs += "loss" in note
            if self.epochs == 2:
                raise KeyboardInterrupt

    out = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        vidfuse.train(dataset, epochs=4, frames=4, out=out, device="cuda", reporter=Stopped())
    assert vidfuse.train(resume=out, device="cpu").epochs == 4
