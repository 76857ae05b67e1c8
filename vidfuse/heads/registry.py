"""The table of heads, their options, and building one from a name and options.

An option is a keyword-only argument of a head's constructor, with a type and a default: that is the
one place where it is declared. The command line, model files, listings and comparisons read it
here. Imports no torch by itself.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from vidfuse.errors import UnknownNameError, UserError, closest, first_sentence

if TYPE_CHECKING:
    from vidfuse.heads.base import Head

HEADS: dict[str, str] = {
    "attentive-probe": "vidfuse.heads.attentive_probe:AttentiveProbe",
    "cbam": "vidfuse.heads.recalibration:CBAM",
    "channel-attention": "vidfuse.heads.recalibration:ChannelAttention",
    "convgru": "vidfuse.heads.convolutional:ConvGRU",
    "convlstm": "vidfuse.heads.convolutional:ConvLSTM",
    "gat": "vidfuse.heads.graph:GAT",
    "gcn": "vidfuse.heads.graph:GCN",
    "gru": "vidfuse.heads.recurrent:GRU",
    "lstm": "vidfuse.heads.recurrent:LSTM",
    "max": "vidfuse.heads.pooling:Max",
    "mean": "vidfuse.heads.pooling:Mean",
    "mean-std": "vidfuse.heads.pooling:MeanStd",
    "middle": "vidfuse.heads.pooling:Middle",
    "ms-tcn": "vidfuse.heads.multi_stage:MultiStageTCN",
    "rnn": "vidfuse.heads.recurrent:RNN",
    "parallel": "vidfuse.heads.parallel:Parallel",
    "policy": "vidfuse.heads.policy:Policy",
    "rnn-cnn": "vidfuse.heads.rnn_cnn:RNNCNN",
    "self-attention": "vidfuse.heads.attention:SelfAttention",
    "spatial-attention": "vidfuse.heads.spatial_attention:SpatialAttention",
    "tcn": "vidfuse.heads.temporal_convolution:TCN",
    "temporal-attention": "vidfuse.heads.temporal_attention:TemporalAttention",
    "transformer": "vidfuse.heads.attention:Transformer",
}
"""The heads that come with vidfuse: name → "module:Class"."""

ENTRY_POINTS = "vidfuse.heads"
"""The entry-point group in which another package announces its heads."""

TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "none",
}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


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
        settings: Values of the head's options. Text, as in `hidden=128` on a command line, is
            converted to the type that the head's constructor declares.

    Raises:
        UnknownNameError: No head has this name.
        UserError: A setting is unknown, its value cannot be used, or a package is missing.
    """
    cls = head_class(name)
    if missing := [module for module in cls.requires if find_spec(module) is None]:
        raise UserError(
            f"head '{name}' needs the package {' and '.join(missing)}",
            f'Install it: pip install "vidfuse[{cls.extra}]"',
        )
    values = convert_options(name, cls, settings or {})
    try:
        return cls(channels, grid, classes, **values)
    except ValueError as error:
        given = " ".join(f"{key}={value}" for key, value in values.items())
        raise UserError(f"head '{name}' cannot be built: {error}", f"Settings: {given}") from error
    except Exception as error:
        if name in HEADS:
            raise
        raise UserError(f"head '{name}' cannot be built: {blame(name, error)}") from error


def blame(name: str, error: Exception) -> str:
    """Describe an error in the code of a head that another package announces."""
    entry = _installed()[name]
    return f"{type(error).__name__} in {entry.value}: {first_sentence(error)}"


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _load(entry: EntryPoint) -> type[Head]:
    """Load a head that another package announces, and check that it is one."""
    from vidfuse.heads.base import Head

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
            f"{entry.value} must be a subclass of vidfuse.heads.base.Head",
        )
    return cls


@dataclass(frozen=True)
class HeadOption:
    """An option of a head.

    Attributes:
        name: Its name, also after ``--head-option``.
        default: Its value unless told otherwise.
        types: The types that it takes, such as ``(int, NoneType)``.
        choices: The values that it takes, of an option with a ``Literal`` type; else none.
    """

    name: str
    default: Any
    types: tuple[Any, ...]
    choices: tuple[Any, ...] = ()

    def convert(self, value: Any) -> Any:
        """Convert a value, perhaps text from a command line, to the first type that it fits.

        Raises:
            UserError: It fits none.
        """
        for choice in self.choices:
            # The type is compared too, because True == 1.
            if (type(value) is type(choice) and value == choice) or value == str(choice):
                return choice
        # Text fits every text option, so it is the last resort of a union such as `int | str`.
        for kind in sorted(self.types, key=lambda kind: kind is str):
            if isinstance(value, str) and kind is not str:
                converted = _parse(value.strip(), kind)
            else:
                converted = float(value) if kind is float and type(value) is int else value
            if type(converted) is float and not math.isfinite(converted):
                continue
            # A bool is an int to Python, and never one to a user.
            plain = get_origin(kind) or kind  # of `list[int]`, the list
            if isinstance(converted, plain) and isinstance(converted, bool) is (kind is bool):
                return converted
        wanted = [TYPE_NAMES.get(kind, str(kind)) for kind in self.types]
        if self.choices:
            wanted.insert(0, "one of " + ", ".join(map(str, self.choices)))
        raise UserError(
            f"setting {self.name}={value} is not {' or '.join(wanted)}",
            f"Its default is {self.name}={self.default}",
        )


def options_of(cls: type) -> dict[str, HeadOption]:
    """Read the options of a head's class, by name, in the order of its constructor."""
    options = {}
    for each in inspect.signature(cls, eval_str=True).parameters.values():
        if each.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        declared = each.annotation
        if declared is inspect.Parameter.empty:
            declared = type(each.default)
        parts = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
        choices = [
            choice for kind in parts if get_origin(kind) is Literal for choice in get_args(kind)
        ]
        types = tuple(
            NoneType if kind is None else kind for kind in parts if get_origin(kind) is not Literal
        )
        options[each.name] = HeadOption(each.name, each.default, types, tuple(choices))
    return options


def convert_options(head: str, cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to the types that a head declares.

    Args:
        head: The head's name, for messages.
        cls: Its class.
        values: Values of some of its options.

    Raises:
        UserError: The head has no such option, or a value cannot be used.
    """
    known = options_of(cls)
    converted = {}
    for name, value in values.items():
        if name not in known:
            close = closest(name, list(known))
            guess = f" Did you mean '{close}'?" if close else ""
            raise UserError(
                f"head '{head}' has no setting '{name}'.{guess}",
                f"Known: {', '.join(sorted(known))}" if known else "This head has no settings.",
            )
        try:
            converted[name] = known[name].convert(value)
        except UserError as error:
            raise UserError(f"head '{head}': {error.message}", error.hint) from None
    return converted


def _parse(text: str, kind: type) -> Any:
    """Parse text as a value of a type; the text itself where it is none."""
    if kind is NoneType:
        return None if text.lower() == "none" else text
    if kind is bool:
        return True if text.lower() in TRUE else False if text.lower() in FALSE else text
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text
