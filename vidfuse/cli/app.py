"""The program ``vidfuse``: finds the command, runs it, and turns errors into exit codes.

Exit codes: 0 good; 1 it ran and inputs failed; 2 wrong usage or configuration; 70 a bug in
vidfuse; 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from vidfuse import __version__
from vidfuse.cli.command import describe_usage_error, take_everywhere
from vidfuse.errors import UnknownNameError, UserError

BEGAN = time.perf_counter()

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
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
# Typer's base class of usage errors, which it does not name itself.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


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
        command = typer.main.get_command(import_module(COMMANDS[name][0]).app)
        take_everywhere(command, self)
        return name, command, args[1:]

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; Typer must not turn these two into exit codes of its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _InterruptedError from error
        except BrokenPipeError as error:
            raise _ClosedPipeError from error


class _InterruptedError(Exception):
    """Somebody pressed Ctrl-C."""


class _ClosedPipeError(Exception):
    """Whoever read our output has seen enough."""


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


@app.callback()
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
    """Turn a folder of videos into a trained, honestly measured action classifier.

    Start with: vidfuse train DATASET
    """


def _forgo_last_collection() -> None:
    """All memory is given back when the process ends; looking for cycles in it first takes long."""
    if "triton" not in sys.modules:  # it would count what is left, and complain of it
        gc.freeze()


def main() -> NoReturn:
    """Run the program and exit."""
    atexit.register(_forgo_last_collection)
    for stream in (sys.stdout, sys.stderr):
        # File names need not be valid text: print their bytes as they are.
        unicode = (stream.encoding or "").lower().startswith("utf")
        errors = "surrogateescape" if unicode else "backslashreplace"
        stream.reconfigure(errors=errors)  # type: ignore[union-attr]
    try:
        status = app(prog_name="vidfuse", standalone_mode=False)
        sys.stdout.flush()
    except (_ClosedPipeError, BrokenPipeError):
        _forget_output()
        sys.exit(0)
    except (_InterruptedError, KeyboardInterrupt, typer.Abort):
        _trace()
        _complain("Interrupted.")
        sys.exit(EXIT_INTERRUPTED)
    except UserError as error:
        _trace()
        _complain(f"Error: {error}")
        sys.exit(error.exit_code)
    except UsageError as error:
        _complain(describe_usage_error(error))
        sys.exit(2)
    except OSError as error:  # a full disk, a cache that is not ours to change
        _trace()
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        _complain(
            f"Error: {place}{error.strerror or error}\n"
            "Check that the disk has room and that the file may be read and written."
        )
        _forget_output()
        sys.exit(UserError.exit_code)
    except Exception as error:
        _trace()
        if isinstance(error, ImportError) and not (error.name or "").startswith("vidfuse"):
            _complain(
                f"Error: a library cannot be imported ({error})\n"
                "See what is broken, and how to repair it: vidfuse doctor"
            )
            sys.exit(UserError.exit_code)
        _complain(
            f"Error: a bug in vidfuse ({type(error).__name__}: {error})\n"
            "Run it again with --debug and report what it prints."
        )
        sys.exit(EXIT_BUG)
    sys.exit(status if isinstance(status, int) else 0)


def _forget_output() -> None:
    """Python must not try to write at exit what could not be written before."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trace() -> None:
    if os.environ.get("VIDFUSE_DEBUG"):
        import traceback

        traceback.print_exc()


def _complain(text: str) -> None:
    print(text, file=sys.stderr)
