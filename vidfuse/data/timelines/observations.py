"""Observations of BORIS, which its projects and its tables of events share.

Times run on from one media file of an observation to the next one, and begin at its time offset.
State events are pairs of START and STOP of one subject, behaviour and set of modifiers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import (
    TIER,
    Source,
    divide_into_lanes,
    free_name,
    make_segment,
    milliseconds,
    path_of,
    positive,
    timeline,
)

START, STOP, POINT, STATE = "START", "STOP", "POINT", "STATE"
NOBODY = "No focal subject"
"""What BORIS writes in tables for events without a subject."""

NOT_AVAILABLE = "NA"


@dataclass(frozen=True, slots=True)
class Event:
    """An event, or one side of a state.

    Attributes:
        where: Its line, or another place in the file.
        time: Seconds in the observation.
        stop: The same of its end, for a state that is written as a whole.
        status: START, STOP, POINT or STATE.
        subject: Whom it is about; empty for nobody.
        behaviour: What it is called.
        modifiers: Which tell states of one behaviour apart.
        media: The file that the table names for it; None where it names none.
    """

    where: int | str
    time: float
    stop: float
    status: str
    subject: str
    behaviour: str
    modifiers: str = ""
    media: str | None = None


@dataclass(slots=True)
class Observation:
    """One observation: events on media files that are played one behind the other.

    Attributes:
        media: Names of the files.
        durations: Of each, in seconds; shorter than ``media`` where they are not known.
        offset: The time at which the first file begins.
        fps: Frames per second of each file, where known.
        events: All of them.
    """

    media: list[str] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    offset: float = 0.0
    fps: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def timelines_of(observation: Observation, source: Source) -> list[Timeline]:
    """A timeline for each media file of an observation; one without a path for a live one."""
    files: dict[str | None, list[Segment]] = {name: [] for name in observation.media}
    if not files:
        files[None] = []
    for event in _pair(observation.events, source):
        try:
            start, stop = event.time - observation.offset, event.stop - observation.offset
            whole = make_segment(start, stop, event.behaviour, tier=event.subject)
            for name, part in _place(whole, event.media, observation):
                files[name].append(part)
        except BadRowError as error:
            source.report(event.where, error)
    durations = dict(zip(observation.media, observation.durations, strict=False))
    found = []
    for name, segments in files.items():
        try:
            length = positive(durations.get(name or ""))
            rate = positive(observation.fps.get(name or ""))
            found.append(timeline(path_of(name), segments, length, rate))
        except BadRowError as error:
            source.report("media file", error)
    return found


def _pair(events: Sequence[Event], source: Source) -> Iterator[Event]:
    """Events and whole states, by time; sides without the other one are reported."""
    open_states: dict[tuple[str, str, str], Event] = {}
    for event in sorted(events, key=lambda each: each.time):
        key = (event.subject, event.behaviour, event.modifiers)
        if event.status in (POINT, STATE):
            yield event
        elif event.status == START:
            if key in open_states:
                _report_open(open_states[key], source)
            open_states[key] = event
        elif key in open_states:
            yield replace(open_states.pop(key), stop=event.time)
        else:
            source.report(event.where, f"STOP of '{event.behaviour}' without a START")
    for event in open_states.values():
        _report_open(event, source)


def _report_open(event: Event, source: Source) -> None:
    source.report(event.where, f"START of '{event.behaviour}' without a STOP")


def _place(
    whole: Segment, media: str | None, observation: Observation
) -> Iterator[tuple[str | None, Segment]]:
    """The parts of a segment in each media file, in the time of that file."""
    names, durations = observation.media, observation.durations
    if len(names) < 2:
        yield (names[0] if names else None), whole
    elif len(durations) < len(names):
        if media != names[0]:
            raise BadRowError(f"how long '{names[0]}' is, which was shown before, is not known")
        yield media, whole
    else:
        begin, last = 0.0, len(names) - 1
        for place, (name, duration) in enumerate(zip(names, durations, strict=True)):
            start = max(whole.start, begin)
            end = whole.end if place == last else min(whole.end, begin + duration)
            here = begin <= whole.start and (place == last or whole.start < begin + duration)
            if end > start or here:
                yield name, replace(whole, start=start - begin, end=max(start, end) - begin)
            begin += duration


def lanes_by_subject(video: Timeline) -> dict[tuple[str, str], list[Segment]]:
    """Segments of one subject and behaviour, which do not overlap.

    What overlaps goes to subjects with a number behind their names.
    """
    classes: dict[tuple[str, str], list[Segment]] = {}
    for each in video.segments:
        classes.setdefault((each.tier or "", each.label), []).append(each)
    subjects = {subject for subject, _ in classes}
    lanes: dict[tuple[str, str], list[Segment]] = {}
    for (subject, label), inside in classes.items():
        name, taken = subject, {*subjects}
        for lane in divide_into_lanes(inside):
            lanes[name, label] = lane
            name = free_name(subject or TIER, taken)
            taken.add(name)
    return lanes


def events_of(video: Timeline, *, all_states: frozenset[str] = frozenset()) -> list[Event]:
    """The events of a timeline, by time, rounded to milliseconds.

    Args:
        video: The timeline.
        all_states: Labels whose point events are written as states, too.
    """
    events = []
    for (subject, label), lane in lanes_by_subject(video).items():
        for each in lane:
            start, end = milliseconds(each.start) / 1000, milliseconds(each.end) / 1000
            if start == end and label not in all_states:
                events.append(Event("", start, start, POINT, subject, label))
            else:
                events.append(Event("", start, start, START, subject, label))
                events.append(Event("", end, end, STOP, subject, label))
    return sorted(events, key=lambda each: each.time)


def observation_names(timelines: Sequence[Timeline]) -> Iterator[tuple[str, Timeline]]:
    """Each timeline with a name of its own: that of its video."""
    taken: list[str] = []
    for video in timelines:
        name = free_name(Path(video.path or "video").stem or "video", taken)
        taken.append(name)
        yield name, video
