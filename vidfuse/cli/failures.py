"""Messages and exit codes of the errors that end the program."""

from __future__ import annotations

import os
from typing import Any

from vidfuse.errors import UserError, first_sentence, os_error_hint, reason_of
from vidfuse.streams import OutputLostError, printable, printable_lines

EXIT_BUG = 70
# What Typer's converter says of values, in the words of the rest of the program.
PLAIN_WORDS = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "not a whole number",
    "Input should be a valid number, unable to parse string as a number": "not a number",
    "Input should be greater than or equal to": "must be at least",
    "Input should be less than or equal to": "must be at most",
}


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
        return printable_lines(_usage_error(error)), UserError.exit_code
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


def _usage_error(error: Any) -> str:
    """A usage error in two lines: the mistake, and the command that shows help."""
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
