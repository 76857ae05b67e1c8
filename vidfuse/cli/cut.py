"""``vidfuse cut``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidfuse.cli.app import BEGAN
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, print_json
from vidfuse.cli.options import with_settings
from vidfuse.cutting.config import CutConfig
from vidfuse.data.timelines import FORMATS
from vidfuse.errors import InputError, UserError
from vidfuse.streams import printable

if TYPE_CHECKING:
    from vidfuse.results import CutRecord, TraceRecord

app = typer.Typer(**PLAIN)
Form = Literal["text", "json", "jsonl"]
HELP = """\
Cut segments of long videos into clips, in a folder for each class.

vidfuse cut labels.csv videos/ --out clips/ takes annotations in any format that vidfuse reads,
those of predict --timeline too, and the videos that they are of, where these are not beside them.
clips/manifest.csv says where each clip is from, so vidfuse train clips/ never has clips of one
video on both sides of a split. Run again, it goes on where it was.

vidfuse cut --trace CLIPS videos/ --out manifest.csv goes the other way: it finds where clips that
were cut lie in their originals. proven: each packet is there; likely: it looks like that place, and
like no other.

In text form a line is the clip, its video, start and end there, and what became of it. Exits with 1
where a clip or video failed; the others are cut all the same.
"""


@app.command(cls=Command, help=HELP)
@with_settings(CutConfig, {"exact": "Clips"})
def cut(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="ANNOTATIONS|VIDEOS",
            help="Files of annotations; videos, folders, globs, or - for a list on standard input.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", metavar="PATH", help="Folder of the clips; with --trace, the manifest."
        ),
    ],
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="CLIPS",
            help="Find the clips in this folder (or dataset) in VIDEOS, instead of cutting any.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write anew what is there already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be cut, and write nothing.")
    ] = False,
    format: Annotated[
        Form, typer.Option("--format", help="Form of the records on stdout.")
    ] = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """The command ``vidfuse cut``."""
    task = Task(
        Path(out).expanduser(),
        CutConfig.from_mapping(settings),
        overwrite,
        dry_run,
        format,
        ConsoleReporter(BEGAN),
    )
    files, named = _divide(inputs)
    if trace is not None:
        if files:
            raise UserError(f"{files[0]}: --trace takes videos, and this is a file of annotations")
        failed = _trace(Path(trace).expanduser(), _videos(named), task)
    else:
        if not files:
            known = ", ".join(dict.fromkeys(s for each in FORMATS.values() for s in each.suffixes))
            reason = "no file of annotations among the arguments"
            raise UserError(reason, f"Their names end in {known}.")
        failed = _cut(files, _videos(named), task)
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Task:
    """The options of both directions: where to write, how, and what to say of it."""

    out: Path
    config: CutConfig
    overwrite: bool
    dry_run: bool
    format: Form
    reporter: ConsoleReporter


def _cut(files: Sequence[Path], videos: Sequence[Path | InputError], task: Task) -> bool:
    """Cut clips; True where one failed."""
    from vidfuse.cutting.run import Cut, summarize

    reporter = task.reporter
    records: list[CutRecord] = []
    said: Counter[str] = Counter()
    with closing(
        Cut(
            task.out,
            task.config,
            overwrite=task.overwrite,
            dry_run=task.dry_run,
            reporter=reporter,
        )
    ) as run:
        plan = run.plan(files, videos)
        for line in plan.left_out:
            reporter.warn(line)
        for record in run.carry_out(plan):
            records.append(record)
            _print(record, record.status, task.format)
            for warning in record.warnings:
                if warning not in said:
                    reporter.warn(f"{record.path}: {warning}")
                said[warning] += 1
            if not record.ok:
                reporter.warn_once(f"{record.path}: {record.error}")
    for warning, count in said.items():
        if count > 1:
            reporter.warn(f"of {count} clips: {warning}")
    result = summarize(task.out, plan, records, dry_run=task.dry_run)
    if task.format == "json":
        print_json({**result.to_dict(), "timings": reporter.timings()})
    _print_summary(records, task)
    return result.failed > 0


def _print_summary(records: Sequence[CutRecord], task: Task) -> None:
    """Say in a few lines what was done."""
    words = {"planned": "to cut", "cut": "cut", "kept": "kept", "failed": "failed"}
    counts = Counter(each.status for each in records)
    told = [f"{counts[status]} {word}" for status, word in words.items() if counts[status]]
    there = [each for each in records if each.ok]
    seconds = sum((each.end or 0) - (each.start or 0) for each in there)
    say = task.reporter.info
    say(f"Clips: {', '.join(told) or 'none'}; {seconds:.1f} s of video")
    early = [each.early for each in there if each.early]
    late = [each.late for each in there if each.late]
    if early:
        say(
            f"{len(early)} copies also hold what comes before them from a key frame on, up to "
            f"{max(early):.2f} s; vidfuse begins at the start."
        )
    shown = sum(each.clip_start is not None for each in there)
    if shown:
        say(f"{shown} of them are in containers that do not hide it, so players show it.")
    if late:
        say(f"Players show up to {max(late):.2f} s more at the end of {len(late)} copies.")
    if early or late:
        say("For the same frames everywhere: --exact")
    if there and not task.dry_run:
        say(f"Train on them: vidfuse train {task.out}")


def _trace(folder: Path, videos: Sequence[Path | InputError], task: Task) -> bool:
    """Find clips in videos; True where one was not found."""
    from vidfuse.cutting.trace import Tracer, check_out, clips_of, summarize_trace, write_trace
    from vidfuse.video.open_clips import OpenClips

    reporter, config = task.reporter, task.config
    check_out(task.out, overwrite=task.overwrite or task.dry_run)
    clips = clips_of(folder, reporter)
    records: list[TraceRecord] = []
    with OpenClips("auto", config.workers, config.time_limit, memory=config.memory_bytes) as pool:
        tracer = Tracer(pool, videos, reporter)
        for record in tracer.trace(clips):
            records.append(record)
            _print(record, record.found or "", task.format)
            if not record.ok:
                reporter.warn_once(f"{record.path}: {record.error}")
    for failure in tracer.failures:
        reporter.warn(f"{failure.path}: {failure.error}")
    found = any(record.ok for record in records)
    if found and not task.dry_run:
        write_trace(task.out, clips, records)
    result = summarize_trace(
        task.out if found and not task.dry_run else None, records, tracer.failures
    )
    if task.format == "json":
        print_json({**result.to_dict(), "timings": reporter.timings()})
    reporter.info(
        f"Clips: {result.proven} proven, {result.likely} likely, {result.missing} not found"
    )
    if result.manifest:
        reporter.info(f"Train on them: vidfuse train {result.manifest}")
    return bool(result.missing or result.failures)


def _print(record: CutRecord | TraceRecord, what: str, form: Form) -> None:
    """A record on a line: as JSON, or its columns, and the error where there is one."""
    if form == "jsonl":
        print(json.dumps(record.to_dict()), flush=True)
    if form != "text":
        return
    times = ["" if time is None else f"{time:.3f}" for time in (record.start, record.end)]
    error = [record.error] if record.error else []
    cells = [record.path, record.source or "", *times, what, *error]
    print("\t".join(map(printable, cells)), flush=True)


def _divide(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files of annotations, and what names videos."""
    suffixes = {suffix for each in FORMATS.values() for suffix in each.suffixes}
    files: list[Path] = []
    others: list[str] = []
    for each in inputs:
        path = Path(each)
        if path.suffix.lower() in suffixes and not path.is_dir():
            files.append(path)
        else:
            others.append(each)
    return files, others


def _videos(named: Iterable[str]) -> list[Path | InputError]:
    from vidfuse.data.files import expand_inputs

    return list(expand_inputs(list(named), sys.stdin))
