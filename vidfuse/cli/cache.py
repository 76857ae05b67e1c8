"""``vidfuse cache``."""

from __future__ import annotations

from typing import Annotated

import typer

from vidfuse.cli.command import Command, new_app
from vidfuse.cli.options import CacheOption
from vidfuse.cli.output import FormatOption, human_size, print_json, print_text
from vidfuse.errors import UnknownNameError, UserError
from vidfuse.settings import parse_size

app = new_app(no_args_is_help=True, help="Look after the feature cache.")
PRUNE_HELP = "Remove entries; without options only what interrupted processes left behind."
VERIFY_HELP = """\
Check every entry, and remove damaged ones so that they are computed again.

Exits with 1 where any was damaged.
"""
INFO_HELP = "Say where the cache is, how large, and what is in it."


@app.command(cls=Command, help=INFO_HELP)
def info(cache: CacheOption = None, format: FormatOption = "text") -> None:
    """The command ``vidfuse cache info``."""
    from vidfuse.features.config import cache_folder
    from vidfuse.features.maintenance import cache_info, describe
    from vidfuse.features.spec import FeatureSpec
    from vidfuse.features.store import Store

    report = cache_info(Store(cache_folder(cache)))
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
def verify(cache: CacheOption = None, format: FormatOption = "text") -> None:
    """The command ``vidfuse cache verify``."""
    from vidfuse.cli.console import ConsoleProgress
    from vidfuse.features.config import cache_folder
    from vidfuse.features.maintenance import verify as check
    from vidfuse.features.store import Store

    progress = ConsoleProgress()
    report = check(Store(cache_folder(cache)), progress)
    for path in report["damaged"]:
        progress.warn(f"{path}: damaged, removed")
    if format == "json":
        print_json(report)
    else:
        print_text(f"{report['entries']} entries checked, {len(report['damaged'])} damaged")
    if report["damaged"]:
        raise typer.Exit(1)


@app.command(cls=Command, help=PRUNE_HELP)
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
    cache: CacheOption = None,
    format: FormatOption = "text",
) -> None:
    """The command ``vidfuse cache prune``."""
    from vidfuse.features.config import cache_folder
    from vidfuse.features.maintenance import cache_info
    from vidfuse.features.maintenance import prune as remove
    from vidfuse.features.store import Store

    store = Store(cache_folder(cache))
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
