"""Checks of what a model file says of itself, before anything is built of it.

A file may come from anywhere, and a few bytes can ask for any amount of memory. So each field has
its type and range, and the head must fit the tensors that are there, of which only the header has
been read then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from math import prod
from threading import get_ident
from typing import TYPE_CHECKING, Any

from vidfuse.errors import UserError
from vidfuse.features.spec import FeatureConfig
from vidfuse.heads import HEADS, build_head, head_class
from vidfuse.heads.registry import convert_options
from vidfuse.streams import is_encodable
from vidfuse.video.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vidfuse.heads.base import Head

Header = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor → its type, as safetensors calls it, and its shape."""
FEW = 4096  # what a number among a head's settings may be, however small its tensors

OPTIONAL = (
    "versions", "config", "protocol", "split", "chooses_frames", "clip_seconds", "segment_seconds",
)  # fmt: skip
"""Fields that earlier releases did not write."""

FIELDS: dict[str, dict[str, type]] = {
    "": {
        "format": int, "classes": list, "seen": dict, "sampling": str, "versions": dict,
        "config": dict, "protocol": str, "split": str, "clip_seconds": float,
        "segment_seconds": float,
    },
    "features": {
        "decode": str, "weights": str, "precision": str, "backbone": str, "layer": str,
        "sampling": str,
    },
    "backbone": {"name": str, "layer": str, "published": bool, "included": bool},
    "head": {"name": str, "channels": int, "grid": int, "settings": dict, "chooses_frames": bool},
}  # fmt: skip
"""The fields that are read of a manifest and of its tables; numbers are sizes, 1 or more."""

MAY_BE_NONE = ("protocol", "split")

TYPES = {
    "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.float64": "F64", "torch.int64": "I64", "torch.int32": "I32", "torch.uint8": "U8",
    "torch.bool": "BOOL",
}  # fmt: skip
"""The types of tensors, as safetensors calls them."""


def check_manifest(manifest: Any) -> None:
    """Check type and range of everything that is read of a manifest.

    Raises:
        KeyError, TypeError, ValueError: Names the field and what is wrong with it.
    """
    _check_fields(manifest, "")
    features, head = manifest["features"], manifest["head"]
    for table in ("features", "backbone", "head"):
        _check_fields(manifest[table], table)
    for name, texts in [("classes", manifest["classes"]), *manifest["seen"].items()]:
        if not isinstance(texts, list):
            raise TypeError(f"seen.{name}: {type(texts).__name__} instead of list")
        for each in texts:
            if not isinstance(each, str) or not is_encodable(each):
                raise ValueError(f"{name}: {each!a} is not Unicode text")
    if not 0 < len(manifest["classes"]) == len(set(manifest["classes"])):
        raise ValueError("classes: not different names")
    # Who trains may ask for what is in these bounds.
    asked = {
        **{name: features[name] for name in ("frames", "size", "crop", "fps") if name in features},
        "grid": str(features["grid"]),
        "cache_frames": manifest["cached_frames"],
        "sampling": manifest["sampling"],
    }
    try:
        for rule in (manifest["sampling"], features["sampling"]):
            Sampling.parse(rule)
        FeatureConfig.from_mapping(asked)
    except UserError as error:
        raise ValueError(": ".join(filter(None, (error.message, error.hint)))) from error
    if features["grid"] not in ("native", head["grid"]):
        raise ValueError(
            f"its head reads a grid of {head['grid']}, and its features have {features['grid']}"
        )


def _check_fields(table: Any, where: str) -> None:
    """Check the types of a table's fields, where sizes are 1 or more and times are
    above 0; a bool is no number.
    """
    if not isinstance(table, dict):
        raise TypeError(f"{where or 'the manifest'}: {type(table).__name__} instead of dict")
    for name, kind in FIELDS[where].items():
        if name not in table and name in OPTIONAL:
            continue
        value, field = table[name], f"{where}.{name}" if where else name
        if value is None and name in MAY_BE_NONE:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{field}: {type(value).__name__} instead of {kind.__name__}")
        if kind is int and table[name] < 1:
            raise ValueError(f"{field}: {value} is below 1")
        if kind is float and not 0 < table[name] < math.inf:
            raise ValueError(f"{field}: {value} is no length of time")


def describe_head(head: Head) -> dict[str, Any]:
    """Describe a head, as a manifest holds it."""
    return {
        "name": head.name,
        "channels": head.channels,
        "grid": head.grid,
        "settings": head.settings,
        "chooses_frames": head.selects_frames,
    }


def check_readable(head: Head) -> None:
    """See that a model of a head could be read again: before it is trained, not after it.

    Raises:
        UserError: It could not.
    """
    try:
        described = json.loads(json.dumps(describe_head(head)))
        _check_fields(described, "head")
        header = {f"head.{name}": _kind(tensor) for name, tensor in head.state_dict().items()}
        check_tensors(described, head.classes, header, backbone=False)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise UserError(
            f"head '{head.name}': a model of it could not be read again ({error})",
            "Choose other settings for it. If it is your own: docs/adding-a-head.md",
        ) from error


def check_tensors(head: Mapping[str, Any], classes: int, header: Header, *, backbone: bool) -> None:
    """See that a file's tensors are those of its head, before either takes memory.

    Args:
        head: The manifest's description of the head.
        classes: Number of classes C.
        header: The tensors of the file.
        backbone: True where those of the backbone are among them.

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
        if not isinstance(value, str | int | float | None):
            raise TypeError(f"head.settings.{name}: {type(value).__name__} instead of str")
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
    if head.get("chooses_frames", blank.selects_frames) is not blank.selects_frames:
        raise ValueError("its head does not choose frames as the manifest says")


def _check_numbers(head: Mapping[str, Any], own: Header) -> None:
    """Refuse a number among the settings that is larger than all tensors together.

    Those of vidfuse's own heads are sizes, or small. Of somebody else's head they may be anything
    (a period, a seed), so where its shapes can be compared, only these count.
    """
    most = max(FEW, sum(prod(shape) for _, shape in own.values()))
    cls = head_class(head["name"])
    for name, value in convert_options(head["name"], cls, head["settings"]).items():
        if isinstance(value, int | float) and not abs(value) <= most:
            raise ValueError(f"head.settings.{name}: {value} does not fit its tensors")


def _without_memory(head: Mapping[str, Any], classes: int, *, most: int) -> Head | None:
    """Build a head with tensors that have shapes alone, and not more than ``most`` of them.

    Returns:
        None for somebody else's head that cannot be built so.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    left, thread = most, get_ident()

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        if parameter is not None and get_ident() == thread:  # other threads build modules too
            left -= 1
            if left < 0:
                raise ValueError("it would have far more parameters than the file has")

    head_class(head["name"])  # is there such a head at all
    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
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
    finally:
        handle.remove()


def _kind(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """Type and shape of a tensor, as a header has them."""
    return TYPES.get(str(tensor.dtype), str(tensor.dtype)), tuple(tensor.shape)
