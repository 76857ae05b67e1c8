"""The numerical mode: offered only where features stay what they are, and remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vidfuse.backbones import FP32, choose, precision
from vidfuse.backbones.engine import TorchEngine
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.backbones.precision import (
    MATCH,
    PrecisionChoice,
    PrecisionSelector,
    cosine,
    supported,
)
from vidfuse.errors import UserError
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest

CPU = torch.device("cpu")


class Body(torch.nn.Module):
    """A network that is as exact and as fast in each precision as a test says."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = error
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        odd = self.error * (self.weight.dtype == torch.bfloat16)
        return torch.cat([images, odd * images.flip(-1) ** 2], 1)


def network(error: float = 0.0) -> Backbone:
    return Backbone(Body(error), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def bf16_takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how long bf16 takes where fp32 takes a second, on a processor that promises it."""

    def take(seconds: float) -> None:
        monkeypatch.setattr(precision, "supported", lambda device: ["bf16"])
        told = {FP32: 1.0, "bf16": seconds}
        monkeypatch.setattr(PrecisionSelector, "_time", lambda modes, name, pixels: told[name])

    return take


@pytest.mark.parametrize(
    ("seconds", "error", "chosen", "reason"),
    [
        (0.5, 0.0, "bf16", "2.00 times as fast"),
        (0.95, 0.0, "fp32", "bf16 is 1.05 times as fast"),
        (8.0, 0.0, "fp32", "bf16 is 0.12 times as fast"),
        (0.1, 0.5, "fp32", "bf16 does not agree"),
    ],
)
def test_a_mode_must_be_faster_and_agree(
    seconds: float,
    error: float,
    chosen: str,
    reason: str,
    pixels: torch.Tensor,
    bf16_takes: Callable[[float], None],
    tmp_path: Path,
) -> None:
    bf16_takes(seconds)
    choice = PrecisionSelector(network(error), file=tmp_path / "notes.json").choose(
        pixels, many=True
    )
    assert choice.precision == chosen
    assert reason in choice.reason


def test_few_clips_are_always_fp32(
    pixels: torch.Tensor, bf16_takes: Callable[[float], None], tmp_path: Path
) -> None:
    bf16_takes(0.1)
    modes = PrecisionSelector(network(), file=tmp_path / "notes.json")
    assert modes.choose(pixels, many=False).precision == FP32
    assert modes.choose(pixels, many=True).precision == "bf16"
    assert modes.choose(pixels, many=False).precision == FP32


def test_it_is_measured_once_for_each_use(
    pixels: torch.Tensor,
    bf16_takes: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "new" / "notes.json"
    bf16_takes(0.5)
    first = PrecisionSelector(network(), identity=("a", 1), file=file).choose(pixels, many=True)
    bf16_takes(2.0)
    assert (
        PrecisionSelector(network(), identity=("a", 1), file=file).choose(pixels, many=True)
        == first
    )
    other = PrecisionSelector(network(), identity=("a", 2), file=file).choose(pixels, many=True)
    assert other.precision == FP32
    assert len(json.loads(file.read_text())) == 2
    monkeypatch.setattr(precision, "processor", lambda device: "another")
    assert (
        PrecisionSelector(network(), identity=("a", 1), file=file).choose(pixels, True).precision
        == FP32
    )


@pytest.mark.parametrize(
    "damage", ["", "[]", "{", '{"KEY": 3}', '{"KEY": {"precision": "fp8", "reason": ""}}', b"\xff"]
)
def test_damaged_notes_are_measured_again(
    damage: str | bytes,
    pixels: torch.Tensor,
    bf16_takes: Callable[[float], None],
    tmp_path: Path,
) -> None:
    bf16_takes(0.5)
    modes = PrecisionSelector(network(), file=tmp_path / "notes.json")
    first = modes.choose(pixels, many=True)
    assert modes.file is not None
    ((key, noted),) = json.loads(modes.file.read_text()).items()
    assert PrecisionChoice(**noted) == first
    content = damage if isinstance(damage, bytes) else damage.replace("KEY", key).encode()
    modes.file.write_bytes(content)
    choice = PrecisionSelector(network(), file=modes.file).choose(pixels, many=True)
    assert choice.precision == "bf16"
    assert PrecisionChoice(**json.loads(modes.file.read_text())[key]) == choice


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    pixels: torch.Tensor, bf16_takes: Callable[[float], None], tmp_path: Path
) -> None:
    bf16_takes(0.5)
    (tmp_path / "file").write_text("")
    modes = PrecisionSelector(network(), file=tmp_path / "file" / "notes.json")
    assert modes.choose(pixels, many=True).precision == "bf16"


def test_a_pinned_mode_must_agree_too(pixels: torch.Tensor) -> None:
    assert PrecisionSelector(network(), "bf16").choose(pixels, many=False).precision == "bf16"
    with pytest.raises(UserError, match=r"bf16 do not agree .*0\.9") as error:
        PrecisionSelector(network(0.5), "bf16").choose(pixels, many=False)
    assert "auto" in str(error.value.hint)


def test_a_pinned_mode_that_the_device_lacks(
    pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(body: Body, images: torch.Tensor) -> torch.Tensor:
        if body.weight.dtype == torch.float16:
            raise RuntimeError("\"conv\" not implemented for 'Half'")
        return images

    monkeypatch.setattr(Body, "forward", forward)
    with pytest.raises(UserError, match=r"cannot compute in fp16 here .*Half"):
        PrecisionSelector(network(), "fp16").choose(pixels, many=False)


@pytest.mark.parametrize("wanted", ["auto", "bf16"])
def test_fewer_frames_are_compared_where_memory_is_short(
    wanted: str,
    pixels: torch.Tensor,
    bf16_takes: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bf16_takes(0.5)
    most, sizes, ordinary = 2, [], Body.forward

    def forward(body: Body, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError
        return ordinary(body, images)

    monkeypatch.setattr(Body, "forward", forward)
    modes = PrecisionSelector(network(), wanted, file=tmp_path / "notes.json")
    assert modes.choose(pixels, many=True).precision == "bf16"
    assert max(sizes) > most
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        PrecisionSelector(network(), wanted, file=tmp_path / "new.json").choose(pixels, many=True)
    with pytest.raises(UserError, match="cpu has too little memory for this backbone"):
        TorchEngine(network(), "bf16").choose(pixels.numpy(), many=True)


def test_what_a_processor_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    for flags, expected in (({"avx2", "avx512f"}, []), ({"avx512_bf16"}, ["bf16"])):
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert supported(CPU) == expected


@pytest.mark.parametrize("name", ["thin_resnet", "thin_efficientnet"])
def test_bf16_of_the_bundled_networks_on_real_clips(
    reference_data: Callable[[str], Path], name: str
) -> None:
    """Same features, and the same nearest clip for every clip."""
    paths = sorted(reference_data("ut_interaction").rglob("*.avi"))[::8][:6]
    paths += sorted(reference_data("real_clips").glob("*.mp4"))
    choice = choose(name)
    modes = PrecisionSelector(load_backbone(choice))
    features: dict[str, list[Any]] = {FP32: [], "bf16": []}
    for path in paths:
        frames = read_frames(FrameRequest(str(path), "uniform", 4, size=choice.info.size), "pyav")
        shown = torch.from_numpy(frames.pixels.copy())
        with torch.inference_mode():
            for mode, found in features.items():
                found.append(modes.network(mode)(shown))
    assert len(paths) >= 6
    worst = min(cosine(*pair) for pair in zip(*features.values(), strict=True))
    assert worst >= MATCH
    assert nearest(features[FP32]) == nearest(features["bf16"])


def nearest(features: list[torch.Tensor]) -> list[int]:
    means = torch.stack([each.mean((0, 2, 3)) for each in features])
    distances = torch.cdist(means, means).fill_diagonal_(torch.inf)
    return distances.argmin(1).tolist()
