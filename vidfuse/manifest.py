"""Checks of what a model file says of itself, before anything is built of it.

A file may come from anywhere, and a few bytes can ask for any amount of memory. So each field has
its type and range, and the head must fit the tensors that are there, of which only the header has
been read then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from threading import get_ident
from typing import TYPE_CHECKING, Any

from vidfuse.errors import UserError
from vidfuse.features.config import FeatureConfig
from vidfuse.fusion import HEADS, build_head, head_class
from vidfuse.fusion.registry import convert_settings
from vidfuse.text import is_encodable
from vidfuse.video.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vidfuse.fusion.base import Head

Header = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor → its type, as safetensors calls it, and its shape."""
FEW = 4096  # what a number among a head's settings may be, however small its tensors


def check_format(value: Any) -> int:
    """The version of a file's format.

    Raises:
        TypeError, ValueError: It is none.
    """
    if _expect(value, int, "format") < 1:
        raise ValueError(f"format: {value} is below 1")
    return int(value)


def check_manifest(manifest: Any) -> None:
    """Check type and range of everything that is read of a manifest.

    Raises:
        KeyError, TypeError, ValueError: Says what is wrong with which field.
    """
    _expect(manifest, dict, "the manifest")
    _names(manifest["classes"], "classes")
    if not 0 < len(manifest["classes"]) == len(set(manifest["classes"])):
        raise ValueError("classes: not different names")
    _expect(manifest["seen"], dict, "seen")
    for part, digests in manifest["seen"].items():
        _names(digests, f"seen.{part}")
    for name in ("versions", "config"):
        _expect(manifest.get(name, {}), dict, name)
    for name in ("protocol", "split"):
        _expect(manifest.get(name, ""), (str, type(None)), name)
    _check_features(manifest)
    _check_head(manifest["head"], manifest["features"]["grid"])


def _check_features(manifest: Mapping[str, Any]) -> None:
    features, backbone = manifest["features"], manifest["backbone"]
    _expect(features, dict, "features")
    _expect(backbone, dict, "backbone")
    for name in ("decode", "weights", "precision", "backbone", "layer"):
        _expect(features[name], str, f"features.{name}")
    for name, kind in (("name", str), ("layer", str), ("published", bool), ("included", bool)):
        _expect(backbone[name], kind, f"backbone.{name}")
    for name, rule in (
        ("sampling", manifest["sampling"]),
        ("features.sampling", features["sampling"]),
    ):
        _sampling(rule, name)
    # Who trains may ask for what is in these bounds.
    asked = FeatureConfig(
        **{name: features[name] for name in ("frames", "size", "crop")},
        **({"fps": features["fps"]} if "fps" in features else {}),
        backbone=backbone["name"],
        grid=str(features["grid"]),
        cache_frames=manifest["cached_frames"],
        sampling=manifest["sampling"],
    )
    if problems := asked.problems():
        raise ValueError("; ".join(problems))


def _sampling(rule: Any, what: str) -> None:
    try:
        Sampling.parse(_expect(rule, str, what))
    except UserError as error:
        raise ValueError(f"{what}: {error.message}") from error


def _check_head(head: Any, grid: Any) -> None:
    _expect(head, dict, "head")
    _expect(head["name"], str, "head.name")
    _expect(head["settings"], dict, "head.settings")
    _expect(head.get("chooses_frames", False), bool, "head.chooses_frames")
    for name in ("channels", "grid"):
        if _expect(head[name], int, f"head.{name}") < 1:
            raise ValueError(f"head.{name}: {head[name]} is below 1")
    if grid not in ("native", head["grid"]):
        raise ValueError(f"its head reads a grid of {head['grid']}, and its features have {grid}")


def describe_head(head: Head) -> dict[str, Any]:
    """The manifest's words on a head."""
    return {
        "name": head.name,
        "channels": head.channels,
        "grid": head.grid,
        "settings": head.settings,
        "chooses_frames": head.chooses_frames,
    }


def check_readable(head: Head) -> None:
    """See that a model of a head could be read again: before it is trained, not after it.

    Raises:
        UserError: It could not.
    """
    try:
        words = json.loads(json.dumps(describe_head(head)))
        _check_head(words, head.grid)
        header = {f"head.{name}": _kind(tensor) for name, tensor in head.state_dict().items()}
        check_tensors(words, head.classes, header, backbone=False)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise UserError(
            f"head '{head.name}': a model of it could not be read again ({error})",
            "Choose other settings for it. If it is your own: docs/adding-a-head.md",
        ) from error


def check_tensors(head: Mapping[str, Any], classes: int, header: Header, *, backbone: bool) -> None:
    """See that a file's tensors are those of its head, before either takes memory.

    Args:
        head: The manifest's words on the head.
        classes: Number of classes C.
        header: The tensors of the file.
        backbone: Whether those of the backbone are among them.

    Raises:
        UserError: The head cannot be built.
        ValueError: The tensors are not its own.
    """
    own = {
        name.removeprefix("head."): kind
        for name, kind in header.items()
        if name.startswith("head.")
    }
    others = [name for name in header if not name.startswith("head.")]
    if odd := [name for name in others if not (backbone and name.startswith("backbone."))]:
        raise ValueError(f"'{odd[0]}' belongs neither to its head nor to a backbone")
    for name, value in head["settings"].items():
        _expect(value, (str, int, float, type(None)), f"head.settings.{name}")
    if head["name"] in HEADS:
        _check_numbers(head, own)
    blank = _without_memory(head, classes, most=4 * len(own) + 100)
    if blank is None:
        _check_numbers(head, own)
        return
    wanted = {name: _kind(tensor) for name, tensor in blank.state_dict().items()}
    for name in sorted(wanted.keys() | own.keys()):
        if name not in own:
            raise ValueError(f"'head.{name}' is missing")
        if name not in wanted:
            raise ValueError(f"its head has no '{name}'")
        if own[name] != wanted[name]:
            here, there = (f"{kind} {list(shape)}" for kind, shape in (own[name], wanted[name]))
            raise ValueError(f"'head.{name}' is {here}, and its head has {there}")
    if head.get("chooses_frames", blank.chooses_frames) is not blank.chooses_frames:
        raise ValueError("its head does not choose frames as the manifest says")


def _check_numbers(head: Mapping[str, Any], own: Header) -> None:
    """No number among the settings is larger than all tensors together.

    Those of vidfuse's own heads are sizes, or small. Of somebody else's head they may be anything
    (a period, a seed), so where its shapes can be compared, only these count.
    """
    most = max(FEW, sum(prod(shape) for _, shape in own.values()))
    for name, value in convert_settings(head["name"], head["settings"]).items():
        if isinstance(value, int | float) and not abs(value) <= most:
            raise ValueError(f"head.settings.{name}: {value} does not fit its tensors")


def _without_memory(head: Mapping[str, Any], classes: int, *, most: int) -> Head | None:
    """The head with tensors that have shapes alone; None of somebody else's that cannot do that."""
    import torch

    head_class(head["name"])  # is there such a head at all
    try:
        with torch.device("meta"), _parameters_at_most(most):
            return build_head(
                head["name"],
                channels=head["channels"],
                grid=head["grid"],
                classes=classes,
                settings=head["settings"],
            )
    except Exception:
        if head["name"] in HEADS:
            raise
        return None


@contextmanager
def _parameters_at_most(most: int) -> Iterator[None]:
    """Stop this thread from making modules without end."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    left, thread = most, get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        if parameter is not None and get_ident() == thread:
            left -= 1
            if left < 0:
                raise ValueError("it would have far more parameters than the file has")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers: every answer would be none either.

    Raises:
        ValueError: Names the first tensor that has some.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"'{name}' has values that are not finite")


def _expect(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """The value, if it has one of the types; a bool is no number."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (kinds == (int,) and isinstance(value, bool)):
        raise TypeError(f"{what}: {type(value).__name__} instead of {kinds[0].__name__}")
    return value


def _names(value: Any, what: str) -> None:
    _expect(value, list, what)
    for each in value:
        if not is_encodable(_expect(each, str, what)):
            raise ValueError(f"{what}: {each!a} is not Unicode text")


def _kind(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """Type and shape, as a header says them."""
    import torch

    names = {
        torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
        torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    return names.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape)
