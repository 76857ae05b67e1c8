"""Command-line options made from ``Settings`` classes, and those that several commands share."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vidfuse.backbones import PRECISION_HELP
from vidfuse.errors import UserError
from vidfuse.settings import MOST_WORKERS, Settings, read_toml, typed_fields

# Options whose command-line form takes pairs: field name → option.
PAIRS = {"head_options": "--head-option"}

ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="FILE",
        help="Model file or run folder; several are averaged. VIDFUSE_MODEL names one, too.",
        show_default="the run that runs/latest names",
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with the names of these options; the command line wins over it, and "
        "it wins over environment variables VIDFUSE_<OPTION>.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where to compute: auto, cpu, cuda, ...",
        envvar="VIDFUSE_DEVICE",
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option("--precision", help=PRECISION_HELP, envvar="VIDFUSE_PRECISION"),
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="FOLDER",
        help="Folder of the feature cache.",
        envvar="VIDFUSE_CACHE",
        show_default="the platform's",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Clips decoded at once.",
        envvar="VIDFUSE_WORKERS",
        min=1,
        max=MOST_WORKERS,
        show_default="one per core",
    ),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="SECONDS",
        help="Seconds that decoding a clip may take.",
        envvar="VIDFUSE_TIME_LIMIT",
        show_default="120 and more for big files",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory that decoding a clip may take, such as 2G.",
        envvar="VIDFUSE_MEMORY",
        show_default="half of the machine's divided by --workers, 1G to 4G",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="How the dataset's folder is laid out.",
        show_default="find out",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", metavar="N", help="Number of the official split.")
]
DecoderOption = Annotated[
    str,
    typer.Option(
        "--decoder",
        metavar="NAME",
        help="Program that reads videos.",
        envvar="VIDFUSE_DECODER",
    ),
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="A dataset's folder, or a manifest.")
]
METAVARS = {int: "N", float: "X", str: "TEXT"}
WIDEST_METAVAR = 24  # longer lists of choices are spelt out in the help
MACHINE = (
    "decoder",
    "workers",
    "time_limit",
    "memory",
    "device",
    "precision",
    "cache",
    "max_failed",
)


def chosen_models(named: list[str] | None) -> list[str] | None:
    """The models of ``--model``, else the one that ``VIDFUSE_MODEL`` names."""
    # Typer would split the variable at spaces, which paths may have.
    variable = os.environ.get("VIDFUSE_MODEL")
    return named or ([variable] if variable else None)


def with_settings(
    cls: type[Settings], panels: dict[str, str] | None = None, without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a ``Settings`` class.

    The command gets them as the argument ``settings``: only what was asked for, on the command
    line, in a ``--config`` file (where the class is that of a run) or in the environment, in this
    order of precedence.

    Args:
        cls: The settings.
        panels: Field name → title of the group in ``--help`` that begins with this field.
        without: Fields that mean nothing to this command.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def run(ctx: typer.Context, **arguments: Any) -> Any:
            settings = _chosen(ctx, cls, arguments)
            kept = {name: value for name, value in arguments.items() if name in own}
            return command(settings=settings, **kept)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        mine = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.items()
            if name != "settings"
        ]
        options = [p for p in _parameters(cls, panels or {}) if p.name not in without]
        parameters = [context, *mine, *options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameters(cls: type[Settings], panels: dict[str, str]) -> Iterator[inspect.Parameter]:
    defaults = cls()
    panel = None
    for each, kind, _ in typed_fields(cls):
        panel = panels.get(each.name, panel)
        rules = each.metadata
        extra: dict[str, Any] = {"rich_help_panel": panel} if panel else {}
        if each.name in PAIRS:
            option = typer.Option(
                PAIRS[each.name], help=rules["help"], metavar="NAME=VALUE", **extra
            )
            yield _parameter(each.name, Annotated[list[str], option], [])
            continue
        if kind is bool:
            switch = f"--{each.name.replace('_', '-')}"
            option = typer.Option(
                f"{switch}/--no-{switch[2:]}",
                help=rules["help"],
                envvar=_variable(each.name),
                show_envvar=False,
                **extra,
            )
            yield _parameter(each.name, Annotated[bool, option], getattr(defaults, each.name))
            continue
        choices = "|".join(rules.get("choices", ()))
        wide = len(choices) > WIDEST_METAVAR
        text = rules["help"]
        if wide:
            text += f" One of {', '.join(rules['choices'])}."
        option = typer.Option(
            f"--{each.name.replace('_', '-')}",
            help=text,
            metavar="NAME" if wide else choices or METAVARS[kind],
            envvar=_variable(each.name),
            # All have one; they are of most use for what belongs to the machine.
            show_envvar=each.name in MACHINE,
            show_default=rules.get("unset", True),
            **extra,
        )
        # Texts, so that the settings themselves can report all that is wrong at once.
        default = getattr(defaults, each.name)
        yield _parameter(
            each.name, Annotated[str | None, option], None if default is None else str(default)
        )


def _variable(name: str) -> str:
    return f"VIDFUSE_{name.upper()}"


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, annotation=annotation, default=default)


def _chosen(ctx: typer.Context, cls: type[Settings], arguments: dict[str, Any]) -> dict[str, Any]:
    """The settings that somebody asked for."""
    by_source: dict[str, dict[str, Any]] = {}
    for each, kind, _ in typed_fields(cls):
        if each.name not in arguments:
            continue  # the command has no such option
        source = ctx.get_parameter_source(each.name)
        value = arguments[each.name]
        if each.name in PAIRS:
            value = _pairs(PAIRS[each.name], value)
        elif value is not None:
            value = _number(value, kind)
        by_source.setdefault(source.name if source else "DEFAULT", {})[each.name] = value
    # Where the cache is belongs to the machine: it is looked up when needed, and no configuration
    # that a run leaves behind shall carry it elsewhere.
    by_source.get("ENVIRONMENT", {}).pop("cache", None)
    file = arguments.get("config")
    configured = read_toml(Path(file).expanduser()) if file else {}
    chosen = {
        **by_source.get("ENVIRONMENT", {}),
        **configured,
        **by_source.get("COMMANDLINE", {}),
    }
    if cls.unknown(configured):  # which might be other arguments of the command
        cls.from_mapping(chosen)
    return chosen


def _number(text: str, kind: Any) -> Any:
    """The number that a text stands for; the settings refuse a text that stands for none."""
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {text}: not of the form NAME=VALUE", "Example: hidden=128")
        pairs[name.strip()] = value.strip()
    return pairs
