"""The table of commands, and the group that finds and runs one."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vidfuse import __version__
from vidfuse.cli.command import take_everywhere
from vidfuse.errors import UnknownNameError, UserError, reason_of

# name → (module with the Typer app, what `vidfuse --help` says). Listing commands imports none.
COMMANDS = {
    "train": ("vidfuse.cli.train", "Train an action classifier on a dataset."),
    "predict": ("vidfuse.cli.predict", "Predict the class of clips with a trained model."),
    "evaluate": ("vidfuse.cli.evaluate", "Measure a trained model on a dataset."),
    "compare": ("vidfuse.cli.compare", "Compare fusion heads on a dataset, and say which to take."),
    "extract": ("vidfuse.cli.extract", "Extract features of clips into the cache."),
    "bench": ("vidfuse.cli.bench", "Measure how fast features are extracted here, and why."),
    "inspect": ("vidfuse.cli.inspect", "Look at a dataset: layout, classes, splits, problems."),
    "doctor": ("vidfuse.cli.doctor", "Check this installation, and say how to repair it."),
    "heads": ("vidfuse.cli.heads", "List the fusion heads: what each reads, needs and costs."),
    "cache": ("vidfuse.cli.cache", "Look after the feature cache: info, verify, prune."),
}
HELP = """\
Turn a folder of videos into a trained, honestly measured action classifier.

Start with: vidfuse train DATASET
"""


class LazyGroup(TyperGroup):
    """Commands whose modules are imported when they run, not when they are listed."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Names in the order in which they are needed."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, name: str) -> Any:  # type: ignore[override]
        """A stand-in with the help text, enough for listing."""
        if name not in COMMANDS:
            return None
        stand_in = typer.Typer(add_completion=False)
        stand_in.command(name, help=COMMANDS[name][1])(lambda: None)
        return typer.main.get_command(stand_in)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The real command, imported now."""
        name = args[0]
        if name not in COMMANDS:
            if name.startswith("-"):
                return super().resolve_command(ctx, args)
            raise UnknownNameError("command", name, COMMANDS)
        _check_folder()
        command = typer.main.get_command(import_module(COMMANDS[name][0]).app)
        take_everywhere(command, self)
        return name, command, args[1:]


def _check_folder() -> None:
    """Refuse to work where nothing can: libraries of torch end the process there.

    Raises:
        UserError: The current folder was removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        message = f"the current folder cannot be used ({reason_of(error)}): was it removed?"
        raise UserError(message, "Go to one that exists, such as: cd ~") from error


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
