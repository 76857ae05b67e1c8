"""``cut --trace``: clips that were cut become rows of a manifest on their originals.

First by packets, whose digests prove where a copied clip is from. What was encoded anew is looked
for by its frames, small and grey, at a few moments a second, and then frame by frame.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidfuse.atomic import make_writable, write_whole
from vidfuse.cutting.manifest import as_cell, relative
from vidfuse.cutting.places import (
    APART,
    Place,
    Vectors,
    as_vectors,
    best_places,
    offsets_by_packets,
    refine,
)
from vidfuse.data.clip import Clip
from vidfuse.data.files import expand_inputs
from vidfuse.data.layouts import LAYOUTS, load_layout, read_dataset
from vidfuse.errors import InputError, UserError
from vidfuse.progress import Reporter
from vidfuse.results import Failure, TraceRecord, TraceResult
from vidfuse.rpc import Answer
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.packets import PacketList
from vidfuse.video.pool import DecodePool
from vidfuse.video.sampling import Times, even_moments

RATE = 8.0  # frames per second that are looked at first
SIDE = 24  # pixels of a small frame
MOST = 10**6  # frames
CANDIDATES = 6  # places that are looked at frame by frame
COMPARED = 64  # frames of a clip then
LEAST_SCORE = 0.8
# The best place is better than any other by so much, or leaves so many times less unexplained:
# where little moves, all places correlate.
MARGIN = 0.15
RATIO = 3.0
NOISE = 0.0005  # what encoding leaves unexplained anyway
COLUMNS = ("path", "label", "group", "start", "end", "clip", "found", "score")


@dataclass(frozen=True, slots=True)
class _Extent:
    """When the part of a clip that counts begins and ends, in seconds of the clip."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Overview:
    """Small frames of an original at even moments, and the mean of them all."""

    vectors: Vectors
    mean: Vectors


class Tracer:
    """Finds clips in originals.

    Args:
        pool: Reads them.
        originals: Where clips may be from.
        reporter: Receives progress updates and warnings.

    Attributes:
        failures: Originals that cannot be read.
    """

    def __init__(
        self, pool: DecodePool, originals: Sequence[Path | InputError], reporter: Reporter
    ) -> None:
        self._pool, self._reporter = pool, reporter
        self.failures = [
            Failure(path=each.path, error=each.reason)
            for each in originals
            if isinstance(each, InputError)
        ]
        paths = dict.fromkeys(each for each in originals if isinstance(each, Path))
        waiting = {path: self._packets(path) for path in paths}
        self._packet_lists: dict[Path, PacketList] = {}
        for path, found in waiting.items():
            try:
                self._packet_lists[path] = _packet_list(found)
            except InputError as error:
                self.failures.append(Failure(path=str(path), error=error.reason))
        self._overviews: dict[Path, _Overview] | None = None

    def trace(self, clips: Sequence[Clip]) -> Iterator[TraceRecord]:
        """The place of each clip, in order."""
        self._reporter.start("Tracing", len(clips))
        try:
            waiting = [(clip, self._extent(clip.path), self._packets(clip.path)) for clip in clips]
            for clip, extent, packets in waiting:
                yield self._trace(clip, extent, packets)
                self._reporter.advance()
        finally:
            self._reporter.finish()

    def _trace(
        self,
        clip: Clip,
        extent: Future[tuple[Answer, bytes]],
        packets: Future[tuple[Answer, bytes]],
    ) -> TraceRecord:
        try:
            answer, _ = extent.result()
            whole = _Extent(float(answer["start"]), float(answer["end"]))
            part = _Extent(
                whole.start if clip.start is None else max(clip.start, whole.start),
                whole.end if clip.end is None else min(clip.end, whole.end),
            )
            record = self._by_packets(clip, part, packets)
            return record or self._by_frames(clip, part)
        except InputError as error:
            return _missing(clip, error.reason)

    def _extent(self, path: Path) -> Future[tuple[Answer, bytes]]:
        return self._pool.order(str(path), {"op": "extent", "path": str(path.absolute())})

    def _packets(self, path: Path) -> Future[tuple[Answer, bytes]]:
        return self._pool.order(str(path), {"op": "packets", "path": str(path.absolute())})

    def _by_packets(
        self, clip: Clip, part: _Extent, packets: Future[tuple[Answer, bytes]]
    ) -> TraceRecord | None:
        try:
            listed = _packet_list(packets)
        except InputError:  # of a kind without packets; it may still be seen
            return None
        found = [
            (path, offset)
            for path, original in self._packet_lists.items()
            if not _same_file(path, clip.path)
            for offset in offsets_by_packets(listed, original)
        ]
        if len(found) > 1:
            return _missing(clip, f"it was copied from one of several places: {_listed(found)}")
        for path, offset in found:
            return _record(clip, path, part, Place(offset, 1.0), None)
        return None

    def _by_frames(self, clip: Clip, part: _Extent) -> TraceRecord:
        """Look for a clip by its frames.

        Raises:
            InputError: The clip cannot be decoded.
        """
        overviews = self._overview()
        if not overviews:
            return _missing(clip, "no original can be read")
        request = FrameRequest(
            str(clip.path), f"rate:{RATE}", MOST, part.start, part.end, SIDE, "squash"
        )
        frames = self._pool.submit(request).result()
        small = as_vectors(frames.pixels)
        # Its first moment may lie behind its beginning; both grids count from 0 of their files.
        lead = float(even_moments(RATE, part.start, part.end)[0]) - 0.5 / RATE
        coarse = [
            (path, replace(place, offset=place.offset - lead))
            for path, view in overviews.items()
            if not _same_file(path, clip.path)
            for place in best_places(small, view.vectors, view.mean, RATE, CANDIDATES)
        ]
        coarse.sort(key=lambda pair: -pair[1].score)
        if not coarse:
            return _missing(clip, "nothing in the originals looks like it")
        close = replace(request, sampling="uniform", frames=COMPARED)
        shown = self._pool.submit(close).result()
        places = [(path, self._refined(shown, path, place)) for path, place in coarse[:CANDIDATES]]
        places.sort(key=lambda pair: -pair[1].score)
        path, best = places[0]
        others = [
            other.score
            for where, other in places[1:]
            if where != path or abs(other.offset - best.offset) > APART / 2
        ]
        second = max(others, default=0.0)
        if best.score < LEAST_SCORE:
            said = f"nothing in the originals looks like it (best {best.score:.2f}, in {path})"
            return _missing(clip, said)
        left = max(1 - best.score, NOISE)
        if best.score - second < MARGIN and 1 - second < RATIO * left:
            said = f"several places look like it: {_listed([(p, x.offset) for p, x in places[:2]])}"
            return _missing(clip, said)
        return _record(clip, path, part, best, second)

    def _refined(self, shown: Frames, path: Path, place: Place) -> Place:
        """A place to the frame.

        Raises:
            InputError: The original cannot be decoded there.
        """
        reach = 1.5 / RATE
        start = max(shown.start + place.offset - reach, 0.0)
        end = shown.end + place.offset + reach
        request = FrameRequest(str(path), "stride:1", MOST, start, end, SIDE, "squash")
        around = self._pool.submit(request).result()
        assert self._overviews is not None
        return refine(
            as_vectors(shown.pixels),
            shown.times,
            as_vectors(around.pixels),
            around.times,
            self._overviews[path].mean,
            place.offset,
            reach,
        )

    def _overview(self) -> dict[Path, _Overview]:
        """The overview of each original, made when first needed."""
        if self._overviews is None:
            self._overviews = {}
            for path in self._packet_lists:
                try:
                    self._overviews[path] = self._look_through(path)
                except InputError as error:
                    self.failures.append(Failure(path=str(path), error=error.reason))
        return self._overviews

    def _look_through(self, path: Path) -> _Overview:
        """Small frames of an original, a stretch at a time.

        Raises:
            InputError: No stretch can be read.
        """
        stretches, _ = self._pool.stretches(str(path), 25.0)
        request = FrameRequest(str(path), f"rate:{RATE}", MOST, size=SIDE, crop="squash")
        waiting: list[tuple[Times, Future[Frames]]] = []
        for each in stretches:
            moments = even_moments(RATE, each.start, each.end)
            part = replace(request, start=each.start, end=each.end)
            waiting.append((moments, self._pool.submit(part)))
        count = max(int(moments[-1] * RATE) + 1 for moments, _ in waiting)
        vectors = np.full((count, SIDE * SIDE), np.nan, np.float32)
        problem: InputError | None = None
        for moments, found in waiting:
            try:
                small = as_vectors(found.result().pixels)
            except InputError as error:
                problem = error
                self._reporter.warn(f"{path}: a part cannot be read ({error.reason})")
                continue
            first = int(moments[0] * RATE)
            vectors[first : first + len(small)] = small[: count - first]
        if np.isnan(vectors).all():
            raise problem or InputError(path, "no frame in it can be decoded")
        return _Overview(vectors, np.asarray(np.nanmean(vectors, axis=0), np.float32))


def check_out(out: Path, *, overwrite: bool) -> None:
    """See that a manifest can be written, before long work.

    Raises:
        UserError: There is a file already, the name is no manifest's, or the folder cannot be
            written.
    """
    if out.suffix.lower() != ".csv" or out.is_dir():
        raise UserError(f"{out}: not the name of a manifest", "Example: --out manifest.csv")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: there already", "Replace it: --overwrite")
    make_writable(out.parent)


def clips_of(folder: Path, reporter: Reporter) -> list[Clip]:
    """The clips of a dataset, or of a folder without classes.

    Raises:
        UserError: There is none.
    """
    if any(load_layout(name).recognise(folder) for name in LAYOUTS):
        data = read_dataset(folder)
        for line in data.problems:
            reporter.warn(line)
        return data.clips
    found = list(expand_inputs([str(folder)]))
    clips = [Clip(each) for each in found if isinstance(each, Path)]
    if not clips:
        raise UserError(f"{folder}: no clips in it", "Give the folder of clips that were cut.")
    return clips


def write_trace(out: Path, clips: Sequence[Clip], records: Sequence[TraceRecord]) -> None:
    """Write the manifest of originals.

    Raises:
        UnwritableError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for clip, record in zip(clips, records, strict=True):
        if record.source is None:
            continue
        source = Path(record.source)
        writer.writerow(
            [
                relative(source, out.parent),
                clip.label or "",
                clip.group or source.stem,
                as_cell(record.start),
                as_cell(record.end),
                relative(clip.path, out.parent),
                record.found,
                "" if record.score is None else f"{record.score:.3f}",
            ]
        )
    write_whole(out, text.getvalue())


def summarize_trace(
    out: Path | None, records: Sequence[TraceRecord], failures: Sequence[Failure]
) -> TraceResult:
    """The result of tracing, from its records."""
    return TraceResult(
        manifest=None if out is None else str(out),
        clips=list(records),
        failures=list(failures),
        proven=sum(each.found == "proven" for each in records),
        likely=sum(each.found == "likely" for each in records),
        missing=sum(not each.ok for each in records),
    )


def _packet_list(found: Future[tuple[Answer, bytes]]) -> PacketList:
    answer, payload = found.result()
    return PacketList.from_bytes(answer["count"], payload)


def _same_file(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute()


def _listed(places: Sequence[tuple[Path, float]]) -> str:
    told = ", ".join(f"{path} at {max(offset, 0):.2f} s" for path, offset in places[:3])
    return told + (", …" if len(places) > 3 else "")


def _record(
    clip: Clip, path: Path, part: _Extent, place: Place, runner_up: float | None
) -> TraceRecord:
    proven = runner_up is None
    return TraceRecord(
        path=str(clip.path),
        ok=True,
        found="proven" if proven else "likely",
        source=str(path),
        label=clip.label,
        start=round(max(part.start + place.offset, 0.0), 6),
        end=round(part.end + place.offset, 6),
        score=None if proven else round(place.score, 4),
        runner_up=None if runner_up is None else round(runner_up, 4),
        error=None,
    )


def _missing(clip: Clip, reason: str) -> TraceRecord:
    return TraceRecord(
        path=str(clip.path),
        ok=False,
        found=None,
        source=None,
        label=clip.label,
        start=None,
        end=None,
        score=None,
        runner_up=None,
        error=reason,
    )
