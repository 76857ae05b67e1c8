"""The part of ``vidfuse predict`` that makes timelines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidfuse.atomic import ADVICE, make_writable
from vidfuse.data.timeline import Timeline, timeline_of
from vidfuse.data.timelines import FORMATS, format_of, write_timelines
from vidfuse.errors import InputError, UserError
from vidfuse.inference.config import TimelineConfig
from vidfuse.progress import Reporter
from vidfuse.results import TimelineRecord

if TYPE_CHECKING:
    from vidfuse.model import StoredModel


@dataclass(frozen=True, slots=True)
class Files:
    """The files that are asked for beside the records.

    Attributes:
        out: For annotation tools: a file, or a folder that gets one for each video; None is none.
        out_format: One of ``FORMATS``; None is that of the suffix.
        annotate: For copies of the videos: an MP4, or a folder; None is none.
    """

    out: str | None
    out_format: str | None
    annotate: str | None


def predict_timelines(
    models: Sequence[StoredModel],
    inputs: Iterable[Path | InputError | None],
    config: TimelineConfig,
    files: Files,
    reporter: Reporter,
) -> Iterator[TimelineRecord]:
    """The timeline of each input, and files of them.

    Args:
        models: One.
        inputs: Videos; see `timeline_records`.
        config: How the model is used.
        files: What is written.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: There are several models, the model cannot slide over videos, or nothing can be
            written there.
    """
    if len(models) > 1:
        raise UserError("a timeline is made by one model", "Name one with --model.")
    if files.out is None and files.out_format is not None:
        raise UserError("--out-format says how --out is written", "Name a file or folder: --out")
    out, name = None, ""
    if files.out is not None:
        out = Path(files.out).expanduser()
        name = format_of(out, files.out_format)
        if FORMATS[name].several and out.is_dir():
            suffix = FORMATS[name].suffixes[0]
            reason = f"--out {out}: a folder, and the format '{name}' has all videos in one file"
            raise UserError(reason, f"Example: --out {out / ('timelines' + suffix)}")
        make_writable(out if _is_folder(out, name) else out.parent, ADVICE)
    copies = None
    if files.annotate is not None:
        copies = Path(files.annotate).expanduser()
        if copies.suffix.lower() not in ("", ".mp4"):
            raise UserError(f"--annotate writes MP4, not {copies.suffix}", f"{copies.stem}.mp4")
        make_writable(copies.parent if copies.suffix else copies, ADVICE)

    from vidfuse.inference.timeline import TimelinePredictor, timeline_records

    records = timeline_records(TimelinePredictor(models[0], config, reporter), inputs)
    if copies is not None:
        records = _drawn(records, copies, reporter)
    return records if out is None else _written(records, out, name, reporter)


def _is_folder(out: Path, name: str) -> bool:
    """True where ``--out`` gets a file for each video, in a format that holds one."""
    about = FORMATS[name]
    return not about.several and (out.is_dir() or out.suffix.lower() not in about.suffixes)


def _drawn(
    records: Iterator[TimelineRecord], target: Path, reporter: Reporter
) -> Iterator[TimelineRecord]:
    """Pass records on, each when its timeline is drawn into a copy of the video.

    Raises:
        InputError: At the end: some could not be drawn.
        UserError: One file is named for several videos.
    """
    from vidfuse.video.annotate import annotate_video

    errors: list[InputError] = []
    taken: set[Path] = set()
    for record in records:
        if record.ok and record.duration is not None:
            path = Path(record.path)
            copy = target if target.suffix else target / f"{path.stem}.mp4"
            if target.suffix and taken:
                yield record
                raise UserError(f"--annotate {target} is one file", "For several videos, a folder.")
            number = 2
            while copy in taken or copy.resolve() == path.resolve():
                copy, number = copy.with_name(f"{path.stem}-{number}.mp4"), number + 1
            taken.add(copy)
            try:
                segments = timeline_of(record).segments
                annotate_video(path, segments, record.duration, copy, reporter)
                reporter.info(f"Drawn: {copy}")
            except InputError as error:
                errors.append(error)
        yield record
    if errors:
        reason = f"no copy was drawn ({errors[0].reason})"
        raise InputError(errors[0].path, reason + f"; {len(errors)} in all" * (len(errors) > 1))


def _written(
    records: Iterator[TimelineRecord], target: Path, name: str, reporter: Reporter
) -> Iterator[TimelineRecord]:
    """Pass records on; at the end, also where it came early, write those that there are.

    Raises:
        UserError: They do not fit into the file, or it cannot be written.
    """
    done: list[Timeline] = []
    try:
        for record in records:
            if record.ok:
                done.append(timeline_of(record))
            yield record
            if len(done) > 1 and not FORMATS[name].several and not _is_folder(target, name):
                return  # what writes them says that one file is too few
    finally:
        if done:
            files = write_timelines(done, target, format=name)
            reporter.info(f"Written: {files[0]}" if len(files) == 1 else f"Written: {target}")
