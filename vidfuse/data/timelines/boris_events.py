"""Tables of events that BORIS exports: "tabular" and "aggregated", of version 8 and older.

Tabular ones have a row for each START, STOP and POINT, aggregated ones a row for each state.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vidfuse.data.tables import BadRowError, Row, csv_rows, split_header
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines.common import Source, clean_text, length_of, number, seconds
from vidfuse.data.timelines.observations import (
    NOBODY,
    NOT_AVAILABLE,
    POINT,
    START,
    STATE,
    STOP,
    Event,
    Observation,
    events_of,
    observation_names,
    timelines_of,
)

_HINT = "In BORIS: Observations, Export events, Tabular or Aggregated events, as TSV or CSV."
_DELIMITERS = "\t,;"
_MEDIA = ("media file name", "media file path", "media file")
_PLAYER = "player #1:"
_COLUMNS = (
    "Observation id",
    "Observation date",
    "Description",
    "Observation duration",
    "Observation type",
    "Source",
    "Time offset (s)",
    "Media duration (s)",
    "FPS",
    "Subject",
    "Behavior",
    "Behavioral category",
    "Behavior type",
    "Time",
    "Media file name",
    "Image index",
    "Image file path",
    "Comment",
)


def recognise(text: str) -> bool:
    """Recognise the header of either table, wherever it stands."""
    return _find_header(text) is not None


def read(source: Source) -> list[Timeline]:
    """Read the events of all observations.

    Raises:
        UserError: There is no header as BORIS writes it.
    """
    header = _find_header(source.text)
    if header is None:
        raise source.refuse("no table of events of BORIS", _HINT)
    first_line, delimiter = header
    lines = source.text.splitlines(keepends=True)
    table = "".join(lines[first_line - 1 :])
    before = _preamble(lines[: first_line - 1], delimiter)
    observations: dict[str, Observation] = {}
    for line, row in csv_rows(source.file, table, delimiter, first_line):
        try:
            if isinstance(row, BadRowError):
                raise row
            event = _event(row, line)
            name = str(row.get("observation id", ""))
            observation = observations.get(name) or _observation({**before, **row})
            observations[name] = observation
            _add(event, row, observation)
        except BadRowError as error:
            source.report(line, error)
    return [each for known in observations.values() for each in timelines_of(known, source)]


def _find_header(text: str) -> tuple[int, str] | None:
    """Line and delimiter of the header, which older versions write below other lines."""
    for line, content in enumerate(text.splitlines(), start=1):
        for delimiter in _DELIMITERS:
            names = set(split_header(content, delimiter))
            aggregated = {"behavior", "start (s)", "stop (s)"} <= names
            if aggregated or (
                {"behavior", "time"} <= names and names & {"behavior type", "status"}
            ):
                return line, delimiter
    return None


def _preamble(lines: Sequence[str], delimiter: str) -> dict[str, object]:
    """The values above an old table, by their names."""
    rows = csv.reader((line.replace("\0", "") for line in lines), delimiter=delimiter)
    try:
        return {cells[0].strip().casefold(): cells[1] for cells in rows if len(cells) > 1}
    except csv.Error:
        return {}


def _event(row: Row, line: int) -> Event:
    behaviour = clean_text(row.get("behavior"), "behavior")
    if not behaviour:
        raise BadRowError("there is no behavior")
    status = clean_text(row.get("behavior type") or row.get("status"), "behavior type").upper()
    if "start (s)" in row:
        status = STATE
        time = seconds(row.get("start (s)"), f"start of '{behaviour}'")
        stop = seconds(row.get("stop (s)"), f"stop of '{behaviour}'")
        if stop < time:
            raise BadRowError(f"stop {stop:g} of '{behaviour}' is before start {time:g}")
    else:
        time = stop = seconds(row.get("time"), f"time of '{behaviour}'")
    if status not in (START, STOP, POINT, STATE):
        raise BadRowError(f"'{behaviour}' is neither START, STOP nor POINT: {status[:80]}")
    subject = clean_text(row.get("subject"), "subject")
    modifiers = "|".join(str(row[name]) for name in sorted(row) if name.startswith("modifier"))
    media = _known(next((row[name] for name in _MEDIA if name in row), None))
    subject = "" if subject == NOBODY else subject
    return Event(line, time, stop, status, subject, behaviour, modifiers, media)


def _known(cell: object) -> str | None:
    text = clean_text(cell, "media file")
    return None if text in ("", NOT_AVAILABLE, "Not found") else text


def _observation(row: Row) -> Observation:
    """The observation of a row: files, their durations and rates, and the offset."""
    names = _of_first_player(row.get("source"))
    if len(names) == 1 and _known(names[0]) is None:
        names = []  # a live observation
    durations = _numbers(row.get("media duration (s)"))
    rates = _numbers(row.get("fps") or row.get("fps (frame/s)"))
    offset = row.get("time offset (s)")
    observation = Observation(offset=0.0 if not offset else number(offset, "time offset"))
    if names and len(durations) == len(names):
        observation.media, observation.durations = names, durations
        observation.fps = dict(zip(names, rates, strict=False))
    elif len(names) == 1:
        observation.media = names
        observation.fps = dict(zip(names, rates, strict=False))
    return observation


def _add(event: Event, row: Row, observation: Observation) -> None:
    if event.media is not None and len(observation.durations) < max(len(observation.media), 1):
        # No list of files with their durations: the files are those that events name.
        if event.media not in observation.media:
            observation.media.append(event.media)
        for rate in _numbers(row.get("fps"))[:1]:
            observation.fps.setdefault(event.media, rate)
    observation.events.append(event)


def _of_first_player(cell: object) -> list[str]:
    text = str(cell or "").split("|player #", 1)[0]
    return [name.strip() for name in text.removeprefix(_PLAYER).split(";") if name.strip()]


def _numbers(cell: object) -> list[float]:
    """The numbers of the first player; none where one cannot be read."""
    parts = str(cell or "").split("|", 1)[0].split(";")
    try:
        return [number(part, "") for part in parts]
    except BadRowError:
        return []


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A tabular export, an observation for each video.

    Times are rounded to milliseconds; scores are lost, and so are videos without segments.
    """
    out = io.StringIO()
    delimiter = "," if file.suffix.lower() == ".csv" else "\t"
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for name, video in observation_names(timelines):
        path = NOT_AVAILABLE if video.path is None else str(video.path)
        length = NOT_AVAILABLE if video.duration is None else f"{video.duration:.3f}"
        about = (
            *(name, "", "", f"{length_of(video):.3f}"),
            "Live observation" if video.path is None else "Media file(s)",
            NOT_AVAILABLE if video.path is None else f"{_PLAYER}{path}",
            *("0.0", length, NOT_AVAILABLE if video.fps is None else f"{video.fps:.3f}"),
        )
        for each in events_of(video):
            what = (each.subject or NOBODY, each.behaviour, "", each.status, f"{each.time:.3f}")
            writer.writerow((*about, *what, path, NOT_AVAILABLE, NOT_AVAILABLE, ""))
    return out.getvalue()
