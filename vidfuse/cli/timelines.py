"""The part of ``vidfuse predict`` that makes timelines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidfuse.atomic import ADVICE, make_writable
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import FORMATS, format_of, write_timelines
from vidfuse.errors import InputError, UserError
from vidfuse.inference.config import TimelineConfig
from vidfuse.progress import Reporter
from vidfuse.results import TimelineRecord

if TYPE_CHECKING:
    from vidfuse.model import StoredModel


def predict_timelines(
    models: Sequence[StoredModel],
    inputs: Iterable[Path | InputError | None],
    config: TimelineConfig,
    out: str | None,
    out_format: str | None,
    reporter: Reporter,
) -> Iterator[TimelineRecord]:
    """The timeline of each input, and a file of them.

    Args:
        models: One.
        inputs: Videos; see `timeline_records`.
        config: How the model is used.
        out: A file, or a folder that gets one for each video; None writes none.
        out_format: One of ``FORMATS``; None is that of the suffix.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: There are several models, the model cannot slide over videos, or nothing can be
            written there.
    """
    if len(models) > 1:
        raise UserError("a timeline is made by one model", "Name one with --model.")
    if out is None and out_format is not None:
        raise UserError("--out-format says how --out is written", "Name a file or folder: --out")
    target = None if out is None else Path(out).expanduser()
    name = "" if target is None else format_of(target, out_format)
    if target is not None:
        one_each = not FORMATS[name].several and target.suffix.lower() not in FORMATS[name].suffixes
        make_writable(target if one_each else target.parent, ADVICE)

    from vidfuse.inference.timeline import TimelinePredictor, timeline_records

    records = timeline_records(TimelinePredictor(models[0], config, reporter), inputs)
    return records if target is None else _written(records, target, name, reporter)


def _written(
    records: Iterator[TimelineRecord], target: Path, name: str, reporter: Reporter
) -> Iterator[TimelineRecord]:
    """Pass records on; at the end, also where it came early, write those that there are."""
    done: list[Timeline] = []
    try:
        for record in records:
            if record.ok:
                segments = [
                    Segment(each.start, each.end, each.label, each.score)
                    for each in record.segments
                ]
                path = Path(record.path)
                done.append(Timeline(path, segments, record.duration, record.fps))
            yield record
    finally:
        if done:
            files = write_timelines(done, target, format=name)
            reporter.info(f"Written: {files[0]}" if len(files) == 1 else f"Written: {target}")
