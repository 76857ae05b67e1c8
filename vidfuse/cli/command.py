"""How a command presents itself: plain help in groups, and usage errors in two lines."""

from __future__ import annotations

import copy
import re
import shutil
from textwrap import wrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

NAMES_AT = 26  # column where the help of an option begins
# What Typer's converter says of values, in the words of the rest of the program.
PLAIN_WORDS = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "not a whole number",
    "Input should be a valid number, unable to parse string as a number": "not a number",
    "Input should be greater than or equal to": "must be at least",
    "Input should be less than or equal to": "must be at most",
}
EVERYWHERE = ("debug", "quiet")  # options of the program that every command takes as well


class Command(TyperCommand):
    """A command whose ``--help`` is plain text, its options in groups."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """The line that says how to call it."""
        names = [_argument(param) for param in _of_kind(self.get_params(ctx), "argument")]
        formatter.write_usage(ctx.command_path, " ".join(["[OPTIONS]", *names]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options by the group they belong to."""
        params = self.get_params(ctx)
        width = min(100, shutil.get_terminal_size().columns) - 2
        rows = [(_argument(param), param.help or "") for param in _of_kind(params, "argument")]
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": rows} if rows else {}
        for param in _of_kind(params, "option"):
            record = param.get_help_record(ctx)
            if record is not None:
                title = getattr(param, "rich_help_panel", None) or "Options"
                name, text = map(_plain, record)
                groups.setdefault(title, []).append((name, text))
        groups["Options"] = groups.pop("Options", [])  # last, since they are the least special
        for title, records in groups.items():
            formatter.write(f"\n{title}:\n")
            for name, text in records:
                formatter.write(_row(name, text, width))


def new_app(**settings: Any) -> typer.Typer:
    """A Typer app in plain text."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, **settings)


def take_everywhere(command: Any, program: Any) -> None:
    """Let a command, and those in it, take the options that the program itself takes."""
    for inner in command.commands.values() if isinstance(command, TyperGroup) else [command]:
        for param in program.params:
            if param.name in EVERYWHERE:
                mine = copy.copy(param)
                mine.expose_value = False  # its callback is all it takes
                inner.params.append(mine)


def describe_usage_error(error: Any) -> str:
    """What is wrong with the command line, and where help is."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and context:
        close = " or ".join(sorted(error.possibilities or ()))
        text = f"'{context.command_path}' has no option {option}."
        text += f" Did you mean {close}?" if close else ""
    else:
        text = error.format_message()
        for theirs, ours in PLAIN_WORDS.items():
            text = text.replace(theirs, ours)
        text = text[:1].lower() + text[1:]
    return f"Error: {text}" + (f"\nTry: {context.command_path} --help" if context else "")


def _of_kind(params: list[Any], kind: str) -> list[Any]:
    return [param for param in params if param.param_type_name == kind]


def _argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    return f"{name}..." if param.nargs != 1 else name


def _plain(text: str) -> str:
    """Without the brackets that Typer puts around types and around defaults in words."""
    return re.sub(r"default: \((.*)\)", r"default: \1", re.sub(r"<([\w|]+)>$", r"\1", text))


def _row(name: str, text: str, width: int) -> str:
    lines = wrap(text, max(20, width - NAMES_AT)) or [""]
    if len(name) > NAMES_AT - 4:
        lines.insert(0, "")
    first = f"  {name}".ljust(NAMES_AT) + lines[0]
    return "\n".join([first.rstrip(), *(" " * NAMES_AT + line for line in lines[1:])]) + "\n"
