"""The table of commands, the group that finds and runs one, and how each presents itself."""

from __future__ import annotations

import copy
import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vidfuse import __version__
from vidfuse.errors import UnknownNameError, UserError, reason_of

# name → (module with the Typer app, what `vidfuse --help` says). Listing commands imports none.
COMMANDS = {
    "train": ("vidfuse.cli.train", "Train an action classifier on a dataset."),
    "predict": ("vidfuse.cli.predict", "Predict the class of clips with a trained model."),
    "evaluate": ("vidfuse.cli.evaluate", "Measure a trained model on a dataset."),
    "cut": ("vidfuse.cli.cut", "Cut segments of long videos into clips, and find clips again."),
    "compare": ("vidfuse.cli.compare", "Compare heads on a dataset, and say which to take."),
    "extract": ("vidfuse.cli.extract", "Extract features of clips into the cache."),
    "adapt": ("vidfuse.cli.adapt", "Adapt a bundled encoder to your videos, without labels."),
    "bench": ("vidfuse.cli.bench", "Benchmark feature extraction and find the bottleneck."),
    "inspect": ("vidfuse.cli.inspect", "Look at a dataset: layout, classes, splits, problems."),
    "doctor": ("vidfuse.cli.doctor", "Check this installation, and say how to repair it."),
    "backbones": ("vidfuse.cli.backbones", "List the encoders: what each sees, gives and costs."),
    "heads": ("vidfuse.cli.heads", "List the heads: what each reads, needs and costs."),
    "cache": ("vidfuse.cli.cache", "Manage the feature cache: info, verify, prune."),
}
HELP = """\
Turn a folder of videos into a trained, honestly measured action classifier.

Start with: vidfuse train DATASET
"""
EVERYWHERE = ("debug", "quiet")  # options of the program that every command takes as well
# Help in plain text reads better in a pipe and at 80 columns than rich's boxes, and starts faster.
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}


class Command(TyperCommand):
    """A command whose options stand in ``--help`` in titled groups, as rich's panels do."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, the groups of options, and last those that are in none."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            title = "Arguments" if param.param_type_name == "argument" else "Options"
            row = param.get_help_record(ctx)
            if row is not None:
                groups.setdefault(getattr(param, "rich_help_panel", None) or title, []).append(row)
        groups["Options"] = groups.pop("Options")
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=24)


class LazyGroup(TyperGroup):
    """Commands whose modules are imported when they run, not when they are listed."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Names in the order in which they are needed."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, name: str) -> Any:  # type: ignore[override]  # noqa: ARG002
        """A stand-in with the help text, enough for listing."""
        if name not in COMMANDS:
            return None
        stand_in = typer.Typer(add_completion=False)
        stand_in.command(name, help=COMMANDS[name][1])(lambda: None)
        return typer.main.get_command(stand_in)

    def get_help_option(self, ctx: Any) -> Any:
        """The option ``--help``, with a default: to convert None, Typer imports pydantic."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The real command, imported now.

        Raises:
            UserError: There is none of this name, or the current folder was removed: libraries of
                torch end the process there.
        """
        name = args[0]
        if name not in COMMANDS:
            if name.startswith("-"):
                return super().resolve_command(ctx, args)
            raise UnknownNameError("command", name, COMMANDS)
        try:
            os.getcwd()
        except OSError as error:
            message = f"the current folder cannot be used ({reason_of(error)}): was it removed?"
            raise UserError(message, "Go to one that exists, such as: cd ~") from error
        command = typer.main.get_command(import_module(COMMANDS[name][0]).app)
        for inner in command.commands.values() if isinstance(command, TyperGroup) else [command]:
            for param in self.params:
                if param.name in EVERYWHERE:
                    own = copy.copy(param)
                    own.expose_value = False  # its callback is all it takes
                    inner.params.append(own)
        return name, command, args[1:]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **PLAIN,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"vidfuse {__version__}")
        raise typer.Exit


def _switch_on(param: typer.CallbackParam, wanted: bool) -> None:
    """Keep a switch where every part of the program, and its decode processes, can see it."""
    if wanted:
        os.environ[f"VIDFUSE_{str(param.name).upper()}"] = "1"


@app.callback(help=HELP)
def _main(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_switch_on,
            help="Only warnings and errors on standard error.",
            envvar="VIDFUSE_QUIET",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            callback=_switch_on,
            help="Show tracebacks of errors.",
            envvar="VIDFUSE_DEBUG",
        ),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    """The options of the program itself."""
