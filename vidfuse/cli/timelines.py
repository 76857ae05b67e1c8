"""The part of ``vidfuse predict`` that makes timelines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidfuse.cli.destination import Destination
from vidfuse.data.timeline import Timeline, timeline_of
from vidfuse.data.timelines import FORMATS, checked, format_of, one_video_only, write_timelines
from vidfuse.errors import InputError, UserError
from vidfuse.inference.config import TimelineConfig
from vidfuse.progress import Reporter
from vidfuse.results import TimelineRecord

if TYPE_CHECKING:
    from vidfuse.model import StoredModel


@dataclass(slots=True)
class Files:
    """The files that are asked for beside the records.

    Attributes:
        out: For annotation tools: a file, or a folder that gets one for each video; None is none.
        out_format: One of ``FORMATS``; None is that of the suffix.
        annotate: For copies of the videos: an MP4, or a folder; None is none.
        overwrite: Whether files that are there are replaced.
        incomplete: Whether one could not be made, of a video that has a record.
    """

    out: str | None
    out_format: str | None
    annotate: str | None
    overwrite: bool
    incomplete: bool = False


def predict_timelines(
    models: Sequence[StoredModel],
    inputs: Iterable[Path | InputError | None],
    config: TimelineConfig,
    files: Files,
    top: int | None,
    reporter: Reporter,
    *,
    listed: bool,
) -> Iterator[TimelineRecord]:
    """The timeline of each input, and files of them.

    Args:
        models: One.
        inputs: Videos; see `timeline_records`.
        config: How the model is used.
        files: What is written; it is told whether that was all.
        top: How many classes a record of a clip lists; None here.
        reporter: Receives progress updates and collects the time of each stage.
        listed: Whether all inputs are known, and so, before the work, whether all can be written.

    Raises:
        UserError: There are several models, the model cannot slide over videos, or nothing can be
            written there.
    """
    if len(models) > 1:
        raise UserError("a timeline is made by one model", "Name one with --model.")
    if top is not None:
        raise UserError("--top does not go with --timeline", "Leave out one of the two.")
    if files.out is None and files.out_format is not None:
        raise UserError("--out-format says how --out is written", "Name a file or folder: --out")
    if files.overwrite and files.out is None and files.annotate is None:
        raise UserError("--overwrite is for --out and --annotate", "Name one, or leave it out.")
    known = None
    if listed:
        inputs = known = [each for each in inputs if each is not None]
    out, name = _out(files, known)
    copies = _copies(files, known)

    from vidfuse.inference.timeline import TimelinePredictor, timeline_records

    records = timeline_records(TimelinePredictor(models[0], config, reporter), inputs)
    if copies is not None:
        records = _drawn(records, copies, files, config.memory_bytes, reporter)
    if out is not None:
        write = _in_folder if out.is_folder else _in_one_file
        records = write(records, out, name, files, reporter)
    return records


def _out(
    files: Files, inputs: Sequence[Path | InputError] | None
) -> tuple[Destination | None, str]:
    """The destination of ``--out``, and the name of the format.

    Raises:
        UserError: There is no such format, or not all can be written.
    """
    if files.out is None:
        return None, ""
    out = Destination("--out", files.out, overwrite=files.overwrite)
    if out.is_folder and files.out_format is None:
        reason = f"--out {files.out}: a folder, and its files may be of any format"
        raise UserError(reason, f"Name the format: --out-format {', '.join(FORMATS)}")
    name = format_of(out.path, files.out_format)
    videos = sum(isinstance(each, Path) for each in inputs or ())
    if videos > 1 and not out.is_folder and not FORMATS[name].several:
        raise one_video_only(out.path, name, videos)
    out.suffix = FORMATS[name].suffixes[0]
    out.prepare(inputs)
    return out, name


def _copies(files: Files, inputs: Sequence[Path | InputError] | None) -> Destination | None:
    """The destination of ``--annotate``.

    Raises:
        UserError: It is no MP4, or not all can be written.
    """
    if files.annotate is None:
        return None
    copies = Destination("--annotate", files.annotate, overwrite=files.overwrite)
    if not copies.is_folder:
        if copies.path.suffix.lower() != ".mp4":
            reason = f"--annotate writes MP4, not {copies.path.suffix}"
            raise UserError(reason, f"{copies.path.stem}.mp4")
        if sum(isinstance(each, Path) for each in inputs or ()) > 1:
            raise _one_copy(copies)
    copies.suffix = ".mp4"
    copies.prepare(inputs)
    return copies


def _one_copy(copies: Destination) -> UserError:
    return UserError(f"--annotate {copies.path} is one file", "For several videos, a folder.")


def _drawn(
    records: Iterator[TimelineRecord],
    copies: Destination,
    files: Files,
    memory: int | None,
    reporter: Reporter,
) -> Iterator[TimelineRecord]:
    """Pass records on, each when its timeline is drawn into a copy of the video.

    Raises:
        UserError: One file is named for several videos that come over time.
    """
    from vidfuse.video.annotate import annotate_video

    drawn = False
    for record in records:
        path = Path(record.path)
        copy = copies.file_of(path) if copies.is_folder else copies.path
        if record.ok and record.duration is not None:
            if drawn and not copies.is_folder:
                yield record
                raise _one_copy(copies)
            drawn = True
            try:
                copies.claim(copy, [path])
                segments = timeline_of(record).segments
                annotate_video(path, segments, record.duration, copy, reporter, memory)
                copies.made(copy)
                reporter.info(f"Drawn: {copy}{_whose(copy, path)}")
            except InputError as error:
                files.incomplete = True
                reporter.warn(f"{path}: no copy was drawn ({error.reason})")
        yield record


def _in_folder(
    records: Iterator[TimelineRecord], out: Destination, name: str, files: Files, reporter: Reporter
) -> Iterator[TimelineRecord]:
    """Pass records on, each when its file is written."""
    for record in records:
        path = Path(record.path)
        file = out.file_of(path)
        timeline = _writable(record, files, reporter)
        if timeline is not None:
            try:
                out.claim(file, [path])
                write_timelines([timeline], file, format=name)
                reporter.info(f"Written: {file}{_whose(file, path)}")
            except InputError as error:
                files.incomplete = True
                reporter.warn(f"{path}: not written ({error.reason})")
        yield record


def _in_one_file(
    records: Iterator[TimelineRecord], out: Destination, name: str, files: Files, reporter: Reporter
) -> Iterator[TimelineRecord]:
    """Pass records on; at the end, also where it came early, write those that there are.

    Raises:
        UserError: They do not fit into the file, or it is an input, or it cannot be written.
    """
    done: list[Timeline] = []
    try:
        for record in records:
            timeline = _writable(record, files, reporter)
            if timeline is not None:
                done.append(timeline)
            yield record
            if len(done) > 1 and not FORMATS[name].several:
                return  # what writes them says that one file is too few
    finally:
        if done:
            out.claim(out.path, [each.path for each in done if each.path is not None])
            write_timelines(done, out.path, format=name)
            reporter.info(f"Written: {out.path}")


def _writable(record: TimelineRecord, files: Files, reporter: Reporter) -> Timeline | None:
    """The timeline of a record; None where there is none, or none that a file can hold."""
    if not record.ok:
        return None
    try:
        return checked(timeline_of(record))
    except UserError as error:
        files.incomplete = True
        reporter.warn(error.message)
        return None


def _whose(file: Path, video: Path) -> str:
    """The video that a file is of, in brackets, where its name does not say that."""
    return "" if file.stem == video.stem else f" (of {video})"
