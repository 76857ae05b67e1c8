"""Print docs/commands.md: what every command says of itself.

python scripts/command_reference.py > docs/commands.md
"""

from __future__ import annotations

import os
import subprocess
import sys

from vidfuse.cli.commands import COMMANDS

INTRODUCTION = """\
# Commands

What `vidfuse COMMAND --help` prints. Every option of `train` and `extract` that is a setting can
also be a line of a TOML file (`train --config`) and an environment variable: `--batch-size` is
`batch_size` and `VIDFUSE_BATCH_SIZE`. The command line wins over the file, the file over the
environment; [a few](scripting.md#environment-variables) have no variable.

<!-- Made by scripts/command_reference.py -->
"""


def main() -> None:
    """Print the reference."""
    print(INTRODUCTION)
    commands = [name for name in COMMANDS if name != "cache"]
    for name in ["", *commands, "cache info", "cache verify", "cache prune"]:
        print(f"## vidfuse {name}".rstrip() + "\n\n```text")
        print(help_of(name).rstrip() + "\n```\n")


def help_of(command: str) -> str:
    """What a command prints with ``--help`` on a terminal of 100 columns."""
    words = [sys.executable, "-m", "vidfuse", *command.split(), "--help"]
    columns = os.environ | {"COLUMNS": "100"}
    return subprocess.run(words, env=columns, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
