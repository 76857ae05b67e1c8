"""``cut``, from top to bottom: annotations, the videos that they are of, clips, a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vidfuse.atomic import make_writable, writing
from vidfuse.cutting.config import CutConfig
from vidfuse.cutting.manifest import (
    NAME,
    ManifestRow,
    add_row,
    as_cell,
    read_manifest,
    relative,
    write_manifest,
)
from vidfuse.cutting.names import Names
from vidfuse.cutting.plan import Part, plan_parts
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import Annotations, read_timelines
from vidfuse.data.timelines.pairing import find_video
from vidfuse.errors import InputError, UserError
from vidfuse.progress import Reporter
from vidfuse.results import CutRecord, CutResult
from vidfuse.rpc import Answer
from vidfuse.video.backends import image_backend
from vidfuse.video.cut_job import EXACT_SUFFIX, CutJob, CutOutcome, copied_suffix
from vidfuse.video.pool import DecodePool

SECONDS_A_SECOND = 20.0  # that encoding a second of video may take, however slow the machine
TOLERANCE = 0.1  # seconds by which a segment may end behind its video without a word

Answered = Future[tuple[Answer, bytes]]


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """A clip to cut.

    Attributes:
        source: The video.
        part: Which part of it.
        path: The file, from the folder of all clips, with ``/``.
        group: The video's name, which no other video has.
    """

    source: Path
    part: Part
    path: str
    group: str


@dataclass(frozen=True, slots=True)
class CutPlan:
    """All that is to be cut.

    Attributes:
        clips: In order.
        failures: Videos that cannot be found or read.
        left_out: What becomes no clip, and why.
    """

    clips: list[ClipPlan] = field(default_factory=list)
    failures: list[CutRecord] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Cut:
    """One run of ``cut``.

    Args:
        out: The folder of class folders.
        config: Which segments become clips, and how.
        overwrite: Whether clips that are there are written anew.
        dry_run: Whether to write nothing.
        reporter: Receives progress updates.

    Attributes:
        rows: Of the manifest, by path.
        begun: Files of clips that are not whole yet.

    Raises:
        UserError: The settings do not go together, the folder cannot be written, or holds a
            manifest that is another's.
    """

    def __init__(
        self, out: Path, config: CutConfig, *, overwrite: bool, dry_run: bool, reporter: Reporter
    ) -> None:
        if config.wanted == []:
            raise UserError("labels: no name at all", "Example: --labels jump,run")
        if config.background is not None and not config.background.strip():
            raise UserError("background: an empty name", "Example: --background none")
        self._out, self._config, self._reporter = out, config, reporter
        self._overwrite, self._dry = overwrite, dry_run
        if out.exists() and not out.is_dir():
            raise UserError(f"{out}: a file, and not a folder", "Choose another --out.")
        self.rows = read_manifest(out)
        self.begun: set[Path] = set()
        if not dry_run:
            make_writable(out)
        folders = {row.label: row.path.split("/", 1)[0] for row in self.rows.values()}
        self._folders = Names(folders)
        self._groups = Names({row.source: row.group for row in self.rows.values()})
        self._pool = DecodePool(
            "pyav", config.workers, config.time_limit, memory=config.memory_bytes
        )

    def close(self) -> None:
        """End the processes, remove what they left, and write the manifest in order."""
        self._pool.close()
        for partial in self.begun:
            with suppress(OSError):
                partial.unlink()
        if not self._dry and self.rows:
            write_manifest(self._out, self.rows.values())

    def plan(self, files: Sequence[Path], videos: Sequence[Path | InputError]) -> CutPlan:
        """Read annotations, and see what becomes a clip.

        Args:
            files: Of annotations.
            videos: That were named.

        Raises:
            UserError: A file cannot be read, or there is no segment, or none of a class that was
                named.
        """
        plan = CutPlan()
        for each in videos:
            if isinstance(each, InputError):
                plan.failures.append(_failure(each.path, each))
        named = [each for each in videos if isinstance(each, Path)]
        read = [(file, read_timelines(file, fps=self._config.fps)) for file in files]
        alone = sum(len(found.timelines) for _, found in read) == 1
        segments: dict[Path, list[Timeline]] = {}
        for file, found in read:
            for line in found.problems:
                self._reporter.warn(line)
            for timeline in found.timelines:
                path = timeline.path or Path(file.stem)
                source = _cuttable(find_video(path, file.parent, named, alone=alone))
                if isinstance(source, InputError):
                    plan.failures.append(_failure(str(timeline.path or file), source))
                else:
                    segments.setdefault(source, []).append(timeline)
        self._check_labels([found for _, found in read])
        for source, timelines in segments.items():
            self._plan_video(source, timelines, plan)
        if not (
            plan.clips or plan.failures or any(t.segments for f in read for t in f[1].timelines)
        ):
            problems = [line for _, found in read for line in found.problems]
            raise UserError(f"{files[0]}: no segment in it to cut", *problems[:1])
        self._warn_of_alike()
        return plan

    def _check_labels(self, read: Sequence[Annotations]) -> None:
        known = {
            segment.label
            for found in read
            for timeline in found.timelines
            for segment in timeline.segments
        }
        for name in self._config.wanted or []:
            if name not in known:
                hint = f"There are: {', '.join(sorted(known)) or 'none'}."
                raise UserError(f"no segment is labelled '{name}'", hint)

    def _plan_video(self, source: Path, timelines: Sequence[Timeline], plan: CutPlan) -> None:
        segments: list[Segment] = [each for one in timelines for each in one.segments]
        duration = max((one.duration or 0.0 for one in timelines), default=0.0) or None
        if self._config.background is not None and duration is None:
            order = {"op": "extent", "path": str(source.absolute())}
            try:
                answer, _ = self._pool.order(str(source), order).result()
            except InputError as error:
                plan.failures.append(_failure(str(source), error))
                return
            duration = float(answer["end"])
        parts, left_out = plan_parts(segments, self._config, duration)
        plan.left_out.extend(f"{source}: {line}" for line in left_out)
        if not parts:
            return
        group = self._groups.of(relative(source, self._out), source.stem)
        suffix = EXACT_SUFFIX if self._config.exact else copied_suffix(source.suffix)
        clips: dict[str, ClipPlan] = {}
        for part in parts:
            folder = self._folders.of(part.label, part.label)
            path = f"{folder}/{group}_{part.start:.3f}-{part.end:.3f}{suffix}"
            # Parts may differ by less than a name tells; two orders would write one file at once.
            clips.setdefault(path, ClipPlan(source, part, path, group))
        plan.clips.extend(clips.values())

    def _warn_of_alike(self) -> None:
        for label, other in self._folders.alike.items():
            self._reporter.warn(
                f"'{label}' and '{other}' would be one folder on some systems: the first is in "
                f"'{self._folders.of(label, label)}'"
            )

    def carry_out(self, plan: CutPlan) -> Iterator[CutRecord]:
        """Cut the clips side by side; records come in the order of the plan, failures first.

        Raises:
            UserError: The folder cannot be written.
        """
        yield from plan.failures
        waiting = [(clip, self._begin(clip)) for clip in plan.clips]
        unreadable: dict[Path, list[str]] = {}
        self._reporter.start("Cutting", len(waiting))
        try:
            for clip, found in waiting:
                if clip.source not in unreadable:
                    record = self._record(clip, found, unreadable)
                    self._reporter.advance()
                    yield record
                    continue
                self._reporter.advance()
                if not isinstance(found, CutRecord):
                    found.cancel()
        finally:
            self._reporter.finish()

    def _begin(self, clip: ClipPlan) -> CutRecord | Answered:
        """Give the order to cut a clip, unless there is none to give."""
        row, target = self.rows.get(clip.path), self._out / clip.path
        if target.exists() and not self._overwrite:
            ours = row is not None and row.source == relative(clip.source, self._out)
            if row is None or not ours or row.method != self._config.method:
                how = f" ({row.method})" if row is not None and ours else ""
                reason = f"there is another file of this name already{how}"
                return _failed(clip, target, InputError(target, reason, "Replace: --overwrite"))
            return _kept(clip, target, row)
        job = CutJob(
            source=str(clip.source.absolute()),
            target=str(self._partial(clip).absolute()),
            suffix=target.suffix,
            start=clip.part.start,
            end=clip.part.end,
            exact=self._config.exact,
            crf=self._config.crf,
            sound=self._config.audio,
            dry=self._dry,
        )
        if not self._dry:
            self.begun.add(self._partial(clip))
            with writing(target.parent, ""):
                target.parent.mkdir(parents=True, exist_ok=True)
        order = {"op": "cut", "job": asdict(job)}
        length = clip.part.end - clip.part.start
        return self._pool.order(str(clip.source), order, length * SECONDS_A_SECOND)

    def _partial(self, clip: ClipPlan) -> Path:
        """The path of a clip until it is whole: no listing takes it for a video."""
        target = self._out / clip.path
        return target.with_name(f".{target.name}.partial")

    def _record(
        self, clip: ClipPlan, found: CutRecord | Answered, unreadable: dict[Path, list[str]]
    ) -> CutRecord:
        if isinstance(found, CutRecord):
            return found
        target, partial = self._out / clip.path, self._partial(clip)
        try:
            answer, _ = found.result()
        except InputError as error:
            return _failed(clip, target, InputError(clip.source, error.reason, error.hint))
        if "unreadable" in answer:
            unreadable[clip.source] = answer["unreadable"]
            return _failure(str(clip.source), InputError(clip.source, *answer["unreadable"]))
        outcome = CutOutcome(**answer["outcome"])
        if not self._dry:
            row = self.rows[clip.path] = self._row(clip, outcome)
            add_row(self._out, row)
            with writing(target, ""):
                partial.replace(target)
        return _done(clip, target, outcome, "planned" if self._dry else "cut")

    def _row(self, clip: ClipPlan, outcome: CutOutcome) -> ManifestRow:
        return ManifestRow(
            path=clip.path,
            label=clip.part.label,
            group=clip.group,
            start=as_cell(outcome.clip_start),
            end=as_cell(outcome.clip_end),
            source=relative(clip.source, self._out),
            source_start=as_cell(outcome.start),
            source_end=as_cell(outcome.end),
            method=self._config.method,
        )


def summarize(
    out: Path, plan: CutPlan, records: Sequence[CutRecord], *, dry_run: bool
) -> CutResult:
    """The result of a run, from its records."""
    there = [each for each in records if each.ok]
    manifest = out / NAME
    return CutResult(
        out=str(out),
        manifest=str(manifest) if there and not dry_run else None,
        clips=list(records),
        left_out=plan.left_out,
        cut=sum(each.status == "cut" for each in records),
        kept=sum(each.status == "kept" for each in records),
        failed=len(records) - len(there),
        seconds=round(sum((each.end or 0) - (each.start or 0) for each in there), 3),
    )


def _cuttable(source: Path | InputError) -> Path | InputError:
    """A video, unless it is none that can be cut: missing, or stored as images."""
    if isinstance(source, InputError):
        return source
    if not source.exists():
        return InputError(source, "no such file", "Check the path.")
    if source.is_file() and not source.stat().st_size:
        return InputError(source, "the file is empty", "Copy or download it again.")
    if image_backend(str(source)):
        hint = "List its segments in a manifest with start,end, which train reads as it is."
        return InputError(source, "images are not cut", hint)
    return source


def _done(clip: ClipPlan, target: Path, outcome: CutOutcome, status: str) -> CutRecord:
    warnings = list(outcome.warnings)
    if clip.part.until > outcome.end + TOLERANCE:
        warnings.append(
            f"the segment ends at {clip.part.until:g} s, and the video at {outcome.end:.2f} s"
        )
    return CutRecord(
        path=str(target),
        ok=True,
        status=status,
        source=str(clip.source),
        label=clip.part.label,
        start=round(outcome.start, 6),
        end=round(outcome.end, 6),
        early=round(outcome.early, 6),
        late=round(outcome.late, 6),
        clip_start=None if outcome.clip_start is None else round(outcome.clip_start, 6),
        clip_end=None if outcome.clip_end is None else round(outcome.clip_end, 6),
        warnings=warnings,
        error=None,
    )


def _kept(clip: ClipPlan, target: Path, row: ManifestRow) -> CutRecord:
    start, end = (float(cell) if cell else None for cell in (row.start, row.end))
    outcome = CutOutcome(
        float(row.source_start), float(row.source_end), clip_start=start, clip_end=end
    )
    return _done(clip, target, outcome, "kept")


def _failed(clip: ClipPlan, target: Path, error: InputError) -> CutRecord:
    return _failure(str(target), error, clip)


def _failure(path: str, error: InputError, clip: ClipPlan | None = None) -> CutRecord:
    return CutRecord(
        path=path,
        ok=False,
        status="failed",
        source=path if clip is None else str(clip.source),
        label=None if clip is None else clip.part.label,
        start=None if clip is None else clip.part.start,
        end=None if clip is None else clip.part.end,
        early=0.0,
        late=0.0,
        clip_start=None,
        clip_end=None,
        warnings=[],
        error=f"{error.reason}. {error.hint}" if error.hint else error.reason,
    )
