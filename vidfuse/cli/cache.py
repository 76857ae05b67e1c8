"""``vidfuse cache``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, human_size, print_json, print_text
from vidfuse.cli.options import FormatOption, with_settings
from vidfuse.errors import UnknownNameError, UserError
from vidfuse.settings import MachineConfig, parse_size

app = typer.Typer(**PLAIN, no_args_is_help=True, help="Manage the feature cache.")
PRUNE_HELP = "Remove entries; without options only what interrupted processes left behind."
VERIFY_HELP = """\
Check every entry, and remove damaged ones so that they are computed again.

Exits with 1 where any was damaged.
"""
INFO_HELP = "Say where the cache is, how large, and what is in it."


@app.command(cls=Command, help=INFO_HELP)
@with_settings(MachineConfig, only=["cache"])
def info(format: FormatOption = "text", *, settings: dict[str, Any]) -> None:
    """The command ``vidfuse cache info``."""
    from vidfuse.features.cache import Store
    from vidfuse.features.maintenance import cache_info, describe
    from vidfuse.features.spec import FeatureSpec

    report = cache_info(Store(MachineConfig(**settings).cache_folder))
    if format == "json":
        print_json(report)
        return
    print_text(
        f"{report['cache']}: {report['entries']} entries, {human_size(report['bytes'])} "
        f"({human_size(report['free_bytes'])} free)"
    )
    for row in report["specs"]:
        what = describe(FeatureSpec.from_dict(row["spec"])) if row["spec"] else "unknown features"
        print_text(
            f"  {row['digest']}  {row['entries']} entries, {human_size(row['bytes'])}: {what}"
        )


@app.command(cls=Command, help=VERIFY_HELP)
@with_settings(MachineConfig, only=["cache"])
def verify(format: FormatOption = "text", *, settings: dict[str, Any]) -> None:
    """The command ``vidfuse cache verify``."""
    from vidfuse.features.cache import Store
    from vidfuse.features.maintenance import verify as check

    reporter = ConsoleReporter()
    report = check(Store(MachineConfig(**settings).cache_folder), reporter)
    for path in report["damaged"]:
        reporter.warn(f"{path}: damaged, removed")
    if format == "json":
        print_json(report)
    else:
        print_text(f"{report['entries']} entries checked, {len(report['damaged'])} damaged")
    if report["damaged"]:
        raise typer.Exit(1)


@app.command(cls=Command, help=PRUNE_HELP)
@with_settings(MachineConfig, only=["cache"])
def prune(
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than", metavar="DAYS", min=0, help="Remove entries older than so many days."
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            help="Remove the oldest entries down to a size such as 10G.",
        ),
    ] = None,
    spec: Annotated[
        list[str] | None,
        typer.Option(
            "--spec",
            metavar="DIGEST",
            help="Remove the entries of this kind (the digest that `cache info` lists).",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all entries.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    format: FormatOption = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse cache prune``."""
    from vidfuse.features.cache import Store
    from vidfuse.features.maintenance import cache_info
    from vidfuse.features.maintenance import prune as remove

    store = Store(MachineConfig(**settings).cache_folder)
    if spec:
        known = [row["digest"] for row in cache_info(store)["specs"]]
        for digest in spec:
            if digest not in known:
                raise UnknownNameError("spec", digest, known)
    report = remove(
        store,
        older_than_days=older_than,
        max_bytes=None if max_size is None else _bytes(max_size),
        digests=tuple(spec or ()),
        everything=everything,
        dry_run=dry_run,
    )
    if format == "json":
        print_json(report)
        return
    verb = "would be removed" if dry_run else "removed"
    print_text(
        f"{report['removed']} entries ({human_size(report['bytes'])}) and {report['leftovers']} "
        f"leftover files {verb} from {report['cache']}"
    )


def _bytes(text: str) -> int:
    try:
        return parse_size(text)
    except UserError as error:
        raise UserError(f"--max-size: {error.message}", error.hint) from error
