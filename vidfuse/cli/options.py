"""Command-line options made from ``Settings`` classes, and those that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vidfuse.errors import UserError
from vidfuse.settings import Settings, read_toml, typed_fields

# Options whose command-line form takes pairs: field name → option.
PAIRS = {"head_options": "--head-option"}

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model file or run folder.",
        envvar="VIDFUSE_MODEL",
        show_default="the run that runs/latest names",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="Where to compute: auto, cpu, cuda, ...", envvar="VIDFUSE_DEVICE"
    ),
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="Folder of the feature cache.",
        envvar="VIDFUSE_CACHE",
        show_default="the platform's",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Clips decoded at once.",
        envvar="VIDFUSE_WORKERS",
        min=1,
        show_default="one per core",
    ),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        help="Seconds that decoding a clip may take.",
        envvar="VIDFUSE_TIME_LIMIT",
        show_default="120 and more for big files",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option("--layout", help="How the dataset's folder is laid out.", show_default="find out"),
]
DecoderOption = Annotated[
    str, typer.Option("--decoder", help="Program that reads videos.", envvar="VIDFUSE_DECODER")
]


def with_settings(
    cls: type[Settings], panels: dict[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a ``Settings`` class.

    The command gets them as the argument ``settings``: only what was asked for, on the command
    line, in a ``--config`` file (where the class is that of a run) or in the environment, in this
    order of precedence.

    Args:
        cls: The settings.
        panels: Field name → title of the group in ``--help`` that begins with this field.
    """
    names = [each.name for each, _, _ in typed_fields(cls)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def run(ctx: typer.Context, **arguments: Any) -> Any:
            settings = _chosen(ctx, names, arguments)
            kept = {name: value for name, value in arguments.items() if name in own}
            return command(settings=settings, **kept)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        mine = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.items()
            if name != "settings"
        ]
        parameters = [context, *mine, *_parameters(cls, panels or {})]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameters(cls: type[Settings], panels: dict[str, str]) -> Iterator[inspect.Parameter]:
    defaults = cls()
    panel = None
    for each, kind, optional in typed_fields(cls):
        panel = panels.get(each.name, panel)
        rules = each.metadata
        default = getattr(defaults, each.name)
        extra: dict[str, Any] = {"rich_help_panel": panel} if panel else {}
        if "unset" in rules:
            extra["show_default"] = rules["unset"]
        if "choices" in rules:
            extra["metavar"] = "|".join(rules["choices"])
        if each.name in PAIRS:
            option = typer.Option(
                PAIRS[each.name], help=rules["help"], metavar="NAME=VALUE", **extra
            )
            yield _parameter(each.name, Annotated[list[str], option], [])
            continue
        option = typer.Option(
            f"--{each.name.replace('_', '-')}",
            help=rules["help"],
            envvar=f"VIDFUSE_{each.name.upper()}",
            **extra,
        )
        yield _parameter(each.name, Annotated[kind | None if optional else kind, option], default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, annotation=annotation, default=default)


def _chosen(ctx: typer.Context, names: list[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """The settings that somebody asked for."""
    by_source: dict[str, dict[str, Any]] = {}
    for name in names:
        source = ctx.get_parameter_source(name)
        value = arguments[name]
        if name in PAIRS:
            value = _pairs(PAIRS[name], value)
        by_source.setdefault(source.name if source else "DEFAULT", {})[name] = value
    file = arguments.get("config")
    return {
        **by_source.get("ENVIRONMENT", {}),
        **(read_toml(Path(file)) if file else {}),
        **by_source.get("COMMANDLINE", {}),
    }


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {text}: not of the form NAME=VALUE", "Example: hidden=128")
        pairs[name.strip()] = value.strip()
    return pairs
