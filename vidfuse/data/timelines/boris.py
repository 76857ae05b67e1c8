"""Projects of BORIS (``.boris``, format 7.0): observations, and an ethogram."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Timeline
from vidfuse.data.timelines.common import (
    Source,
    clean_text,
    length_of,
    load_json,
    mapping,
    milliseconds,
    number,
    positive,
    seconds,
    sequence,
)
from vidfuse.data.timelines.observations import (
    NOT_AVAILABLE,
    POINT,
    START,
    STOP,
    Event,
    Observation,
    events_of,
    lanes_by_subject,
    observation_names,
    timelines_of,
)

_STATE_EVENT, _POINT_EVENT = "State event", "Point event"


def recognise(text: str) -> bool:
    """Recognise a JSON object."""
    return text.lstrip().startswith("{")


def read(source: Source) -> list[Timeline]:
    """Read all observations, a timeline for each media file of the first player.

    Raises:
        UserError: It is no JSON, or no project.
    """
    project = mapping(load_json(source))
    observations, ethogram = project.get("observations"), project.get("behaviors_conf")
    if not isinstance(observations, dict) or not isinstance(ethogram, dict):
        raise source.refuse("no project of BORIS", "A project has observations and an ethogram.")
    kinds = {
        str(entry.get("code")).strip(): str(entry.get("type")).casefold()
        for entry in map(mapping, ethogram.values())
    }
    found = []
    for name, content in observations.items():
        try:
            observation = _read_observation(f"observation '{name[:80]}'", content, kinds, source)
        except BadRowError as error:
            source.report(f"observation '{name[:80]}'", error)
            continue
        found += timelines_of(observation, source)
    return found


def _read_observation(
    where: str, content: object, kinds: Mapping[str, str], source: Source
) -> Observation:
    if not isinstance(content, dict):
        raise BadRowError("not a JSON object")
    observation = Observation(offset=number(content.get("time offset") or 0, "time offset"))
    if content.get("type") == "MEDIA":
        names = sequence(mapping(content.get("file")).get("1"))
        observation.media = [str(name) for name in names]
        about = mapping(content.get("media_info"))
        lengths, rates = mapping(about.get("length")), mapping(about.get("fps"))
        durations = [positive(lengths.get(name)) for name in observation.media]
        observation.durations = [each for each in durations if each is not None]
        found = {name: positive(rates.get(name)) for name in observation.media}
        observation.fps = {name: rate for name, rate in found.items() if rate is not None}
    begun: set[tuple[str, str, str]] = set()
    for count, item in enumerate(sequence(content.get("events")), start=1):
        place = f"{where}, event {count}"
        try:
            observation.events.append(_read_event(place, item, kinds, begun))
        except BadRowError as error:
            source.report(place, error)
    return observation


def _read_event(
    where: str, item: object, kinds: Mapping[str, str], begun: set[tuple[str, str, str]]
) -> Event:
    """An event; one of a state is its START or STOP by turns, which ``begun`` keeps."""
    cells = sequence(item)
    if len(cells) < 3:
        raise BadRowError("not a list of time, subject and behavior")
    behaviour = clean_text(cells[2], "behavior")
    subject = clean_text(cells[1], "subject")
    time = seconds(cells[0], f"time of '{behaviour}'")
    modifiers = str(cells[3]) if len(cells) > 3 else ""
    kind = kinds.get(behaviour)
    if kind is None:
        raise BadRowError(f"'{behaviour}' is not in the ethogram")
    key = (subject, behaviour, modifiers)
    if not kind.startswith("state"):
        status = POINT
    elif key in begun:
        begun.remove(key)
        status = STOP
    else:
        begun.add(key)
        status = START
    return Event(where, time, time, status, subject, behaviour, modifiers)


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """A project with an observation for each video.

    A label is a state if one of its segments has a length. Times are rounded to milliseconds; an
    unknown duration is the end of the last segment; scores are lost.
    """
    segments = [each for video in timelines for each in video.segments]
    labels = sorted({each.label for each in segments})
    states = frozenset(
        each.label for each in segments if milliseconds(each.start) != milliseconds(each.end)
    )
    lanes = (lane for video in timelines for lane in lanes_by_subject(video))
    subjects = sorted({subject for subject, _ in lanes} - {""})
    project = {
        "time_format": "hh:mm:ss",
        "project_date": _now(),
        "project_name": file.stem,
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(place): {"key": "", "name": name, "description": ""}
            for place, name in enumerate(subjects)
        },
        "behaviors_conf": {
            str(place): _behaviour(label, label in states) for place, label in enumerate(labels)
        },
        "observations": {
            name: _observation(video, states) for name, video in observation_names(timelines)
        },
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    return json.dumps(project, ensure_ascii=False, indent=1) + "\n"


def _behaviour(label: str, state: bool) -> dict[str, object]:
    return {
        "type": _STATE_EVENT if state else _POINT_EVENT,
        "key": "",
        "code": label,
        "description": "",
        "color": "",
        "category": "",
        "modifiers": {},
        "excluded": "",
        "coding map": "",
    }


def _observation(video: Timeline, states: frozenset[str]) -> dict[str, object]:
    name = None if video.path is None else str(video.path)
    media = {} if name is None else {name: round(length_of(video), 3)}
    events = [
        [each.time, each.subject, each.behaviour, "", ""]
        + ([] if name is None else [_frame(each.time, video)])
        for each in events_of(video, all_states=states)
    ]
    return {
        "file": {} if name is None else {"1": [name]},
        "type": "LIVE" if name is None else "MEDIA",
        "date": _now(),
        "description": "",
        "time offset": 0.0,
        "events": events,
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "close_behaviors_between_videos": False,
        "scan_sampling_time": 0,
        "plot_data": {},
        "media_info": {
            "length": media,
            "fps": dict.fromkeys(media, video.fps or 0.0),
            "hasVideo": dict.fromkeys(media, True),
            "hasAudio": dict.fromkeys(media, False),
            "offset": {"1": 0.0},
        },
    }


def _frame(time: float, video: Timeline) -> int | str:
    return NOT_AVAILABLE if video.fps is None else round(time * video.fps)


def _now() -> str:
    return datetime.now().isoformat(timespec="seconds")  # BORIS has no time zones
