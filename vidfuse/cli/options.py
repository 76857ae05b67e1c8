"""Command-line options made from ``Settings`` classes, and those that several commands share."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vidfuse.errors import UserError
from vidfuse.settings import MACHINE, Settings, read_toml, typed_fields

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
FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Form of the result on stdout.")
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="A dataset's folder, or a manifest.")
]
ClipsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CLIPS",
        help="A dataset, or videos, folders, globs, - for a list on standard input.",
    ),
]
METAVARS = {int: "N", float: "X", str: "TEXT"}
WIDEST_METAVAR = 24  # longer lists of choices are spelt out in the help


def chosen_models(named: list[str] | None) -> list[str] | None:
    """The models of ``--model``, else the one that ``VIDFUSE_MODEL`` names.

    Raises:
        UserError: A path is empty.
    """
    if "" in (named or []):
        raise UserError("model: an empty path", "Check for an unset variable.")
    # Typer would split the variable at spaces, which paths may have.
    variable = os.environ.get("VIDFUSE_MODEL")
    return named or ([variable] if variable else None)


def with_settings(
    cls: type[Settings],
    panels: dict[str, str] | None = None,
    only: Collection[str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a ``Settings`` class.

    The command gets them as the argument ``settings``: only what was asked for, on the command
    line, in a ``--config`` file (where the class is that of a run) or in the environment, in this
    order of precedence.

    Args:
        cls: The settings.
        panels: Field name → title of the group in ``--help`` that begins with this field.
        only: The fields that mean something to this command; None is all of them.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def run(ctx: typer.Context, **arguments: Any) -> Any:
            settings = _chosen(ctx, cls, arguments)
            kept = {name: value for name, value in arguments.items() if name in own}
            return command(settings=settings, **kept)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(own[name].replace(kind=keyword) for name in own if name != "settings"),
            *_parameters(cls, panels or {}, only),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameters(
    cls: type[Settings], panels: dict[str, str], only: Collection[str] | None
) -> list[inspect.Parameter]:
    """An option for each field; those of the machine come last."""
    made: list[inspect.Parameter] = []
    of_machine: list[inspect.Parameter] = []
    panel = None
    for field, kind, _ in typed_fields(cls):
        rules, name = field.metadata, field.name
        panel = panels.get(name, panel)
        if only is not None and name not in only:
            continue
        group = rules.get("panel", panel)
        flag = f"--{name.replace('_', '-')}"
        default = None if kind is dict else field.default
        shown: dict[str, Any] = {
            "help": rules["help"],
            "envvar": f"VIDFUSE_{name.upper()}" if rules.get("envvar", True) else None,
            # All have one; they are of most use for what belongs to the machine.
            "show_envvar": group == MACHINE,
            "show_default": rules.get("unset", True),
            "rich_help_panel": group,
        }
        if name in PAIRS:
            pairs = typer.Option(
                PAIRS[name], metavar="NAME=VALUE", help=rules["help"], rich_help_panel=group
            )
            option, default = Annotated[list[str], pairs], []
        elif kind is bool:
            off = rules.get("off", f"--no-{flag[2:]}")
            option = Annotated[bool, typer.Option(f"{flag}/{off}", **shown)]
        else:
            # Texts, so that the settings themselves can report all that is wrong at once.
            default = None if default is None else str(default)
            choices = "|".join(rules.get("choices", ()))
            metavar = choices or METAVARS[kind]
            if len(choices) > WIDEST_METAVAR:
                metavar = "NAME"
                shown["help"] += f" One of {', '.join(rules['choices'])}."
            option = Annotated[str | None, typer.Option(flag, metavar=metavar, **shown)]
        parameter = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=option, default=default
        )
        (of_machine if group == MACHINE else made).append(parameter)
    return made + of_machine


def _chosen(ctx: typer.Context, cls: type[Settings], arguments: dict[str, Any]) -> dict[str, Any]:
    """The settings that somebody asked for."""
    by_source: dict[str, dict[str, Any]] = {}
    kinds = {field.name: kind for field, kind, _ in typed_fields(cls)}
    for name in [name for name in kinds if name in arguments]:
        source = ctx.get_parameter_source(name)
        value, kind = arguments[name], kinds[name]
        if name in PAIRS:
            value = _pairs(PAIRS[name], value)
        elif kind in (int, float) and value is not None:
            # The settings refuse a text that stands for no number.
            with contextlib.suppress(ValueError):
                value = kind(value)
        by_source.setdefault(source.name if source else "DEFAULT", {})[name] = value
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
    places = {name: f"VIDFUSE_{name.upper()}" for name in by_source.get("ENVIRONMENT", {})}
    places |= dict.fromkeys(configured, str(file))
    if not places:
        return chosen
    try:
        cls.from_mapping(chosen)
    except UserError as error:
        # Nobody looks for a mistake where nothing was typed.
        told = f"{error.message}\n{error.hint or ''}"
        unseen = places.keys() - by_source.get("COMMANDLINE", {}).keys()
        wrong = sorted(
            {places[name] for name in unseen if re.search(rf"^{re.escape(name)}(?!\w)", told, re.M)}
        )
        hint = f"Set by {' and '.join(wrong)}." if wrong else ""
        raise UserError(error.message, "\n".join(filter(None, [error.hint, hint]))) from error
    return chosen


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {text}: not of the form NAME=VALUE", "Example: hidden=128")
        pairs[name.strip()] = value.strip()
    return pairs
