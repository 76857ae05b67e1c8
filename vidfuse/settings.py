"""Settings as dataclasses: one definition serves Python, TOML files and the command line.

Field names are the names of Python arguments, TOML keys and (with dashes) command-line options.
Each field's metadata holds its ``help``, and where they apply its ``choices`` or the bounds
``min``, ``max``, ``above`` and ``below``. ``panel`` is its group in ``--help``, and ``off`` the
option that switches it off. ``affects_result=False`` marks a setting that decides where, or how
fast, something is computed and not what comes out; any other is taken to matter. ``later=True``
marks one that an earlier release of the same format did not have, whose default is what it did.
``envvar=False`` marks one that no environment variable gives, because another command's setting of
the same name means something else.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Self, get_args, get_origin, get_type_hints

from vidfuse.errors import UserError, closest, reason_of

BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS = {"s": 1, "m": 60, "h": 3600}  # seconds
MOST_WORKERS = 1024  # more processes than any machine has cores
MACHINE = "Machine"  # group of options in --help
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LARGEST_TOML = 1_000_000  # bytes
SPOKEN = {int: "a whole number", float: "a number", str: "text", dict: "a table", bool: "a switch"}


def option(default: Any, help: str, **rules: Any) -> Any:
    """A field of a ``Settings`` class, with its help and the rules it obeys."""
    metadata = {"help": help, **rules}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def same_option(cls: type[Settings], name: str) -> Any:
    """A field that is the same option as that of another ``Settings`` class."""
    own = next(each for each in fields(cls) if each.name == name)
    return field(default=own.default, metadata=dict(own.metadata))


@dataclass
class Settings:
    """Base class: checks all fields and reports every problem at once."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values, as of a TOML table, and validate.

        Raises:
            UserError: A name is unknown or a value cannot be used; lists all problems.
        """
        known = [each.name for each in fields(cls)]
        settings = cls(**{name: value for name, value in values.items() if name in known})
        unknown = [_unknown(name, known) for name in values if name not in known]
        if problems := unknown + settings.problems():
            raise _refused(problems)
        return settings

    def validate(self) -> None:
        """Check every field.

        Raises:
            UserError: Lists all problems at once.
        """
        if problems := self.problems():
            raise _refused(problems)

    def problems(self) -> list[str]:
        """Problems of these settings, one line each."""
        checked = (
            (each.name, _problem(getattr(self, each.name), kind, optional, each.metadata))
            for each, kind, optional in typed_fields(type(self))
        )
        return [f"{name}: {problem}" for name, problem in checked if problem]

    def affecting_result(self) -> dict[str, Any]:
        """Names and values of the settings that affect what comes out."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.metadata.get("affects_result", True)
        }

    def digested(self) -> dict[str, Any]:
        """Those that affect what comes out, but for a later release's at their default."""
        later = {each.name: each.default for each in fields(self) if each.metadata.get("later")}
        return {
            name: value
            for name, value in self.affecting_result().items()
            if name not in later or value != later[name]
        }

    def to_dict(self) -> dict[str, Any]:
        """Names and values without those that are None (TOML has no null)."""
        pairs = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in pairs if value is not None}


@dataclass(kw_only=True)
class MachineConfig(Settings):
    """The machine's part of a command: where and how fast it computes, never what comes out."""

    device: str = option(
        "auto",
        "Where to compute: auto, cpu, cuda, cuda:1, mps, ...",
        panel=MACHINE,
        affects_result=False,
    )
    precision: str = option(
        "auto",
        "Precision of the backbone. auto: fp32 below 200 clips (of a timeline: ten minutes), else "
        "the fastest whose features match fp32.",
        choices=PRECISIONS,
        panel=MACHINE,
        affects_result=False,
    )
    workers: int | None = option(
        None,
        "Clips decoded at once.",
        unset="one per core",
        min=1,
        max=MOST_WORKERS,
        panel=MACHINE,
        affects_result=False,
    )
    time_limit: float | None = option(
        None,
        "Seconds that decoding a clip may take.",
        unset="120 and more for big files",
        above=0,
        panel=MACHINE,
        affects_result=False,
    )
    memory: str | None = option(
        None,
        "Memory that decoding a clip may take, such as 2G.",
        unset="half of the machine's divided by --workers, 1G to 4G",
        least_size="100M",
        panel=MACHINE,
        affects_result=False,
    )
    cache: str | None = option(
        None,
        "Folder of the feature cache.",
        unset="the platform's",
        panel=MACHINE,
        affects_result=False,
    )

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of memory that decoding a clip may take; None leaves it to the machine."""
        return None if self.memory is None else parse_size(self.memory)

    @property
    def cache_folder(self) -> Path:
        """Folder of the feature cache: ``--cache``, ``VIDFUSE_CACHE`` or the platform's place."""
        chosen = self.cache or os.environ.get("VIDFUSE_CACHE")
        if chosen:
            return Path(chosen).expanduser()
        from platformdirs import user_cache_path

        return user_cache_path("vidfuse", appauthor=False) / "features"


def typed_fields(cls: type[Settings]) -> list[tuple[Field[Any], Any, bool]]:
    """Each field with its type and whether it may be None."""
    hints = get_type_hints(cls)
    found = []
    for each in fields(cls):
        kinds = get_args(hints[each.name]) or (hints[each.name],)
        if get_origin(hints[each.name]) is dict:
            kinds = (dict,)
        kind = next(kind for kind in kinds if kind is not NoneType)
        found.append((each, kind, NoneType in kinds))
    return found


def parse_size(text: str) -> int:
    """Bytes that a text such as ``500M`` or ``2.5 GB`` stands for.

    Raises:
        UserError: It is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise UserError(f"'{text}' is not a size", "Examples: 500M, 10G")
    return int(float(match[1]) * BYTES[match[2]])


def parse_duration(text: str) -> float:
    """Seconds that a text such as ``90s``, ``10m`` or ``1h30m`` stands for.

    Raises:
        UserError: It is no duration.
    """
    parts = re.fullmatch(r"(?:\d+(?:\.\d+)?[smh])+", text.strip().lower())
    seconds = 0.0
    for number, unit in re.findall(r"([\d.]+)([smh])", parts[0] if parts else ""):
        seconds += float(number) * UNITS[unit]
    if seconds <= 0:
        raise UserError(f"'{text}' is not a time such as 90s, 10m or 1h30m")
    return seconds


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        UserError: It does not exist, is no file of a configuration's size, or is not TOML.
    """
    import tomllib

    try:
        content = _read_small(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({reason_of(error)})", "Check --config."
        ) from error
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors put a mark before it
    except RecursionError:
        reason = "its brackets are nested too deeply"
    except ValueError as error:  # of TOML, of UTF-8, of a number with thousands of digits
        reason = str(error)
    raise UserError(f"{path}: not TOML ({reason})", 'Write lines such as head = "lstm".')


def _read_small(path: Path) -> bytes:
    """The content of a regular file that is no larger than a configuration can be.

    Raises:
        OSError: It cannot be read.
        UserError: It is another kind of file, which may have no end, or too large.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path}: cannot be read (not a regular file)", "Check --config.")
    with path.open("rb") as file:
        content = file.read(LARGEST_TOML + 1)
    if len(content) > LARGEST_TOML:
        size = f"more than {LARGEST_TOML // 1000} kB"
        raise UserError(f"{path}: too large for a configuration ({size})", "Check --config.")
    return content


def _refused(problems: list[str]) -> UserError:
    if len(problems) == 1:
        return UserError(problems[0])
    return UserError(f"the settings have {len(problems)} problems", "\n".join(problems))


def _unknown(name: str, known: list[str]) -> str:
    """The problem of a name that is no setting."""
    close = closest(name, known)
    guess = f", did you mean '{close}'?" if close else f"; known: {', '.join(known)}"
    return f"{name}: unknown setting{guess}"


def _problem(  # noqa: C901 - one check after the other
    value: Any, kind: Any, optional: bool, rules: Mapping[str, Any]
) -> str | None:
    """The problem of one value, or None."""
    if value is None and optional:
        return None
    accepted = (int, float) if kind is float else kind
    # A bool is an int to Python, and never one to a user.
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, accepted):
        return f"{value!r} is not {SPOKEN[kind]}"
    if kind is float and not math.isfinite(value):
        return f"{value} is not a finite number"
    if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
        return f"{value!r} has a name that is not text"
    if "least_size" in rules:
        try:
            size = parse_size(str(value))
        except UserError as error:
            return f"{error.message} such as 2G"
        if size < parse_size(rules["least_size"]):
            return f"{value} is below {rules['least_size']}"
    if "choices" in rules and value not in rules["choices"]:
        close = closest(str(value), rules["choices"])
        guess = f" (did you mean '{close}'?)" if close else ""
        return f"'{value}' is not one of {', '.join(rules['choices'])}{guess}"
    if "min" in rules and value < rules["min"]:
        return f"{value} is below {rules['min']}"
    if "max" in rules and value > rules["max"]:
        return f"{value} is above {rules['max']}"
    if "above" in rules and value <= rules["above"]:
        return f"{value} is not above {rules['above']:g}"
    if "below" in rules and value >= rules["below"]:
        return f"{value} is not below {rules['below']:g}"
    return None
