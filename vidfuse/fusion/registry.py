"""Which heads exist, and building one from a name and settings. Imports no torch by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import Parameter
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from vidfuse.errors import UnknownNameError, UserError, closest, first_sentence

if TYPE_CHECKING:
    from vidfuse.fusion.base import Head

HEADS: dict[str, str] = {
    "cbam": "vidfuse.fusion.recalibration:CBAM",
    "channel-attention": "vidfuse.fusion.recalibration:ChannelAttention",
    "convgru": "vidfuse.fusion.convolutional:ConvGRU",
    "convlstm": "vidfuse.fusion.convolutional:ConvLSTM",
    "gat": "vidfuse.fusion.graph:GAT",
    "gcn": "vidfuse.fusion.graph:GCN",
    "gru": "vidfuse.fusion.recurrent:GRU",
    "lstm": "vidfuse.fusion.recurrent:LSTM",
    "max": "vidfuse.fusion.pooling:Max",
    "mean": "vidfuse.fusion.pooling:Mean",
    "mean-std": "vidfuse.fusion.pooling:MeanStd",
    "middle": "vidfuse.fusion.pooling:Middle",
    "rnn": "vidfuse.fusion.recurrent:RNN",
    "parallel": "vidfuse.fusion.parallel:Parallel",
    "policy": "vidfuse.fusion.policy:Policy",
    "rnn-cnn": "vidfuse.fusion.rnn_cnn:RNNCNN",
    "self-attention": "vidfuse.fusion.attention:SelfAttention",
    "spatial-attention": "vidfuse.fusion.spatial_attention:SpatialAttention",
    "tcn": "vidfuse.fusion.temporal_convolution:TCN",
    "temporal-attention": "vidfuse.fusion.temporal_attention:TemporalAttention",
    "transformer": "vidfuse.fusion.attention:Transformer",
}
"""The heads that come with vidfuse: name → "module:Class"."""

ENTRY_POINTS = "vidfuse.heads"
"""The entry-point group in which another package announces its heads."""


def head_names() -> list[str]:
    """Names of all heads, vidfuse's own and those of installed packages, sorted."""
    return sorted({*HEADS, *_installed()})


def head_class(name: str) -> type[Head]:
    """Load the class of a head.

    A name of vidfuse's own always means vidfuse's head: no installed package can change it.

    Raises:
        UnknownNameError: No head has this name.
        UserError: Another package announces the head, but it cannot be used.
    """
    if name in HEADS:
        module, _, attribute = HEADS[name].partition(":")
        own: type[Head] = getattr(import_module(module), attribute)
        return own
    installed = _installed()
    if name not in installed:
        raise UnknownNameError("head", name, head_names())
    return _load(installed[name])


def build_head(
    name: str,
    *,
    channels: int,
    grid: int,
    classes: int,
    settings: Mapping[str, Any] | None = None,
) -> Head:
    """Build a head from its name, with fresh weights from torch's global generator.

    Args:
        name: The head's name, such as "lstm".
        channels: Channels D of the features [B, T, D, g, g].
        grid: Side g of the features' spatial grid.
        classes: Number of classes C.
        settings: The head's own settings. Text, as in `hidden=128` on a command line, is
            converted to the type that the head's constructor declares.

    Raises:
        UnknownNameError: No head has this name.
        UserError: A setting is unknown, its value cannot be used, or a package is missing.
    """
    cls = head_class(name)
    if missing := cls.missing():
        raise UserError(
            f"head '{name}' needs the package {' and '.join(missing)}",
            f'Install it: pip install "vidfuse[{cls.extra}]"',
        )
    values = convert_settings(name, settings or {})
    try:
        return cls(channels, grid, classes, **values)
    except ValueError as error:
        given = " ".join(f"{key}={value}" for key, value in values.items())
        raise UserError(f"head '{name}' cannot be built: {error}", f"Settings: {given}") from error
    except Exception as error:
        if name in HEADS:
            raise
        raise UserError(f"head '{name}' cannot be built: {blame(name, error)}") from error


def convert_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a head in the types that its constructor declares.

    Raises:
        UnknownNameError: No head has this name.
        UserError: A setting is unknown, or its value cannot be used.
    """
    known = head_class(name).known_settings()
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise _unknown_setting(name, key, list(known))
        values[key] = _convert(name, value, known[key])
    return values


def blame(name: str, error: Exception) -> str:
    """What to say of an error in the code of a head that another package announces."""
    entry = _installed()[name]
    return f"{type(error).__name__} in {entry.value}: {first_sentence(error)}"


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _load(entry: EntryPoint) -> type[Head]:
    """Load a head that another package announces, and check that it is one."""
    from vidfuse.fusion.base import Head

    package = entry.dist.name if entry.dist else entry.value
    try:
        cls = entry.load()
    except Exception as error:  # whatever somebody else's module raises while it is imported
        raise UserError(
            f"head '{entry.name}' of the package '{package}' cannot be loaded: {error}",
            f"Repair or remove it: pip uninstall {package}",
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Head)):
        raise UserError(
            f"head '{entry.name}' of the package '{package}' is not a vidfuse head",
            f"{entry.value} must be a subclass of vidfuse.fusion.base.Head",
        )
    return cls


def _unknown_setting(head: str, key: str, known: list[str]) -> UserError:
    close = closest(key, known)
    guess = f" Did you mean '{close}'?" if close else ""
    return UserError(
        f"head '{head}' has no setting '{key}'.{guess}",
        f"Known: {', '.join(sorted(known))}" if known else "This head has no settings.",
    )


def _convert(head: str, value: Any, parameter: Parameter) -> Any:
    """Bring a value, perhaps text from a command line, to the type its parameter declares."""
    declared = parameter.annotation
    if declared is Parameter.empty:
        declared = type(parameter.default)
    kinds = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    # Text fits every text setting, so it is the last resort of a union such as `int | str`.
    for kind in sorted(kinds, key=lambda kind: kind is str):
        try:
            return _as(kind, value)
        except ValueError:
            continue
    wanted = " or ".join(_spoken(kind) for kind in kinds)
    raise UserError(
        f"head '{head}': setting {parameter.name}={value} is not {wanted}",
        f"Its default is {parameter.name}={parameter.default}",
    )


def _as(kind: Any, value: Any) -> Any:
    """Convert to one type, or raise ValueError."""
    text = value.strip().lower() if isinstance(value, str) else None
    if kind in (None, NoneType):
        if value is None or text == "none":
            return None
    elif get_origin(kind) is Literal:
        for choice in get_args(kind):
            # The type is compared too, because True == 1.
            if (type(value) is type(choice) and value == choice) or value == str(choice):
                return choice
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if text in ("true", "yes", "on", "1"):
            return True
        if text in ("false", "no", "off", "0"):
            return False
    elif kind is int:
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return int(value)
    elif kind is float:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    elif isinstance(kind, type) and isinstance(value, kind):
        return value
    raise ValueError(value)


def _spoken(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(kind, "none" if kind in (None, NoneType) else str(kind))
