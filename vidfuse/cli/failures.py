"""Messages and exit codes of the errors that end the program."""

from __future__ import annotations

import os

from vidfuse.errors import UserError, first_sentence, os_error_hint, reason_of
from vidfuse.streams import OutputLostError
from vidfuse.text import printable, printable_lines

EXIT_BUG = 70


def explain(error: BaseException) -> tuple[str, int]:
    """Some lines for standard error, none of them where all is well, and the exit code."""
    if isinstance(error, OutputLostError):
        if error.unread:
            return "", 0
        hint = "Check that the disk of the file that it leads to has room."
        return f"Error: {error}\n{hint}", UserError.exit_code
    if isinstance(error, UserError):
        lines = [f"Error: {printable(error.message)}", printable_lines(error.hint or "")]
        return "\n".join(filter(None, lines)), error.exit_code
    if hasattr(error, "format_message"):  # Typer's own, of the command line
        from vidfuse.cli.command import describe_usage_error

        return printable_lines(describe_usage_error(error)), UserError.exit_code
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        lines = [f"Error: {printable(place)}{reason_of(error)}", os_error_hint(error) or ""]
        return "\n".join(filter(None, lines)), UserError.exit_code
    if isinstance(error, MemoryError):
        reason = f" ({printable(first_sentence(error))})" if str(error) else ""
        return (
            f"Error: there is not enough memory{reason}\n"
            "Close other programs, or use fewer --workers."
        ), UserError.exit_code
    if isinstance(error, ImportError) and not (error.name or "").startswith("vidfuse"):
        return (
            f"Error: a library cannot be imported ({error})\n"
            "See what is broken, and how to repair it: vidfuse doctor"
        ), UserError.exit_code
    return (
        f"Error: a bug in vidfuse ({type(error).__name__}: {printable(str(error))})\n"
        "Run it again with --debug and report what it prints."
    ), EXIT_BUG
