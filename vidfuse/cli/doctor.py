"""``vidfuse doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json, print_text
from vidfuse.cli.options import FormatOption, with_settings
from vidfuse.settings import MachineConfig
from vidfuse.streams import printable

if TYPE_CHECKING:
    from vidfuse.doctor import Check

app = typer.Typer(**PLAIN)
HELP = """\
Check this installation and machine, and say how to repair what is broken.

Exits with 1 where something that is needed is broken.
"""


@app.command(cls=Command, help=HELP)
@with_settings(MachineConfig, only=["cache"])
def doctor(format: FormatOption = "text", *, settings: dict[str, Any]) -> None:
    """The command ``vidfuse doctor``."""
    from vidfuse.doctor import examine

    checks = examine(settings.get("cache"), ConsoleReporter())
    broken = [check for check in checks if check.status == "broken"]
    if format == "json":
        print_json({"ok": not broken, "checks": [check.to_dict() for check in checks]})
    else:
        print_text(_text(checks))
    if broken:
        raise typer.Exit(1)


def _text(checks: list[Check]) -> str:
    states = max(len(check.status) for check in checks)
    names = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        head = f"{check.status.ljust(states)}  {check.name.ljust(names)}  "
        lines.append(head + printable(check.summary))
        lines += [" " * len(head) + line for line in (check.fix or "").splitlines()]
    counts = {kind: sum(check.status == kind for check in checks) for kind in ("broken", "warning")}
    warnings = f"{counts['warning']} warning{'s' * (counts['warning'] != 1)}"
    lines.append(f"\n{counts['broken'] or 'nothing'} broken, {warnings}")
    return "\n".join(lines)
