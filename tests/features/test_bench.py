"""What ``bench`` measures and how it compares; times themselves are the machine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard

from vidfuse import benchmark as bench_module
from vidfuse.benchmark import bench
from vidfuse.data.clip import Clip
from vidfuse.errors import UserError
from vidfuse.features.spec import FeatureConfig

CONFIG = FeatureConfig("resnet18", weights="random", layer="layer1", size=32, frames=4, workers=1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "SIDE", 256)


def test_all_parts_are_measured_on_the_clips_that_can_be_read(
    make_clip: Any, tmp_path: Path
) -> None:
    clips = [Clip(make_clip(f"{n}.mkv", seed=n, frames=3 + n)) for n in range(3)]
    torn = Clip(tmp_path / "torn.mkv")
    torn.path.write_bytes(clips[0].path.read_bytes()[:100])
    heard = Heard()
    report = bench([torn, *clips], CONFIG, 2, 2, 0.01, heard)
    assert {name: len(values) for name, values in report["rounds"].items()} == {
        "decode_only": 2, "forward_only": 2, "pipeline": 2, "gemm_flops": 2,
    } | ({"forward_fp32": 2} if report["precision"] != "fp32" else {})  # fmt: skip
    assert (report["distinct_clips"], report["clips"]) == (3, 8)
    assert report["frames_per_clip"] == pytest.approx((3 + 4 + 4) / 3)
    decode, forward = report["decode_only"], report["forward_only"]
    assert report["limit"] == pytest.approx(decode * forward / (decode + forward))
    assert report["fraction_of_limit"] == pytest.approx(report["pipeline"] / report["limit"])
    # conv1 on 16x16 positions, and the four convolutions of layer1 on 8x8
    flops = 2 * (16**2 * 64 * 3 * 49 + 4 * 8**2 * 64 * 64 * 9) * report["frames_per_clip"]
    assert report["gflop_per_clip"] == pytest.approx(flops / 1e9)
    assert report["gemm_fraction"] == pytest.approx(
        report["forward_fp32"] * report["gflop_per_clip"] / report["gemm_gflops"]
    )
    assert [line for line in heard.warnings if "torn.mkv" in line]


def test_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="none of these clips"):
        bench([Clip(tmp_path / "text.mp4")], CONFIG, 2, 1, 0.01, Heard())


def test_on_a_gpu_the_limit_is_the_slower_part() -> None:
    rate = {"decode_only": 30.0, "forward_only": 20.0, "pipeline": 15.0, "gemm_flops": 1e12}
    found = bench_module._compared(rate, torch.device("cuda"), 1e10)
    assert (found["limit"], found["fraction_of_limit"]) == (20.0, 0.75)
    assert found["gemm_fraction"] == pytest.approx(0.2)
