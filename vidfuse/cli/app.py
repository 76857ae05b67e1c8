"""The program ``vidfuse``: runs a command, and turns errors into exit codes.

Exit codes: 0 good; 1 it ran and inputs failed; 2 wrong usage or configuration; 70 a bug in
vidfuse; 130 interrupted.

Next to nothing is imported before there is somebody to hear of Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from vidfuse import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

BEGAN = time.perf_counter()
EXIT_INTERRUPTED = 130


class Interruption(KeyboardInterrupt):
    """Somebody pressed Ctrl-C.

    Where Python's own exception has left an ``exec``, as of a dataclass that is being made, Python
    remembers it and ends by a signal, whatever the exit code.
    """


def main() -> NoReturn:
    """Run the program and exit."""
    pressed: list[int] = []

    def interrupt(number: int, _: object) -> None:
        # Kept, since a library that is being imported may make an error of its own of it.
        pressed.append(number)
        raise Interruption

    if heeded := signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        status = _run()
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told in one line
        if heeded:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # from now on it ends at once, in silence
        if pressed or isinstance(error, KeyboardInterrupt):
            text, status = "Interrupted.", EXIT_INTERRUPTED
        else:
            from vidfuse.cli.failures import explain

            text, status = explain(error)
        if text and os.environ.get("VIDFUSE_DEBUG"):
            import traceback

            traceback.print_exc()
        if text:
            print(text, file=sys.stderr)
        with contextlib.suppress(Exception):
            sys.stdout.flush()  # Python must find nothing left to be written
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


def _run() -> int:
    """Carry out the command line, and say with which exit code it ended."""
    from vidfuse.streams import protect

    protect()
    import vidfuse.machine as machine  # not through the package, which looks for functions
    from vidfuse.cli.commands import app

    machine.spare_imports = True  # this process is nobody else's
    machine.keep_memory()
    status = app(prog_name="vidfuse", standalone_mode=False)
    if status == EXIT_INTERRUPTED:  # what Typer makes of it
        raise Interruption
    return status if isinstance(status, int) else 0
