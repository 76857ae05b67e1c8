"""JSON of Label Studio: tasks with spans on the timeline of a video (``TimelineLabels``).

Spans are frames, from 1, the last one included, in tasks as exported (``JSON``) or short
(``JSON-MIN``). How many frames there are in a second is in no export: it is the task's ``fps``
(``<Video frameRate="$fps"/>``), or that of boxes in the same video, or given by the user. Spans in
seconds, as of audio (``Labels`` on ``Audio``), are read, too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from vidfuse.data.files import is_video
from vidfuse.data.tables import BadRowError
from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines.common import (
    Source,
    load_json,
    make_segment,
    mapping,
    number,
    path_of,
    positive,
    sequence,
    timeline,
)

_DEFAULT_FPS = 24.0  # of Label Studio's <Video>
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # which Label Studio puts before the names of files
_NO_FPS = (
    "spans are counted in frames, and the frames per second are not known: say them, or put "
    '"fps" into the data of the task'
)
_FRAMES, _SECONDS = "timelinelabels", ("labels", "timeserieslabels")


def recognise(text: str) -> bool:
    """Recognise JSON."""
    return text.lstrip()[:1] in ("[", "{")


def read(source: Source) -> list[Timeline]:
    """Read the tasks: a timeline for each annotation, or of the predictions where there is none.

    Raises:
        UserError: It is no JSON, or holds no tasks.
    """
    content = load_json(source)
    tasks = [content] if isinstance(content, dict) else sequence(content)
    if not all(isinstance(task, dict) for task in tasks) or not isinstance(content, dict | list):
        raise source.refuse("no tasks of Label Studio", "Export them as JSON or JSON-MIN.")
    found: list[Timeline] = []
    for count, task in enumerate(map(mapping, tasks), start=1):
        try:
            found += _read_task(task, f"task {count}", source)
        except BadRowError as error:
            source.report(f"task {count}", error)
    if tasks and not found and not source.problems:
        raise source.refuse("no tasks of Label Studio", "Export them as JSON or JSON-MIN.")
    return found


def _read_task(task: Mapping[str, object], where: str, source: Source) -> Iterator[Timeline]:
    data = mapping(task.get("data")) or task
    path = _video(data)
    if "annotations" in task or "predictions" in task:
        results = [_results(each) for each in _finished(task)]
    else:
        results = [_short_results(task)]
    for items in results:
        rate = positive(source.fps) or positive(data.get("fps")) or _rate_of_boxes(items)
        segments: list[Segment] = []
        for count, item in enumerate(items, start=1):
            try:
                segments += _segments(item, rate)
            except BadRowError as error:
                source.report(f"{where}, result {count}", error)
        yield timeline(path, segments, positive(data.get("duration")), rate)


def _finished(task: Mapping[str, object]) -> list[Mapping[str, object]]:
    annotations = [mapping(each) for each in sequence(task.get("annotations"))]
    kept = [each for each in annotations if not each.get("was_cancelled")]
    return kept or [mapping(each) for each in sequence(task.get("predictions"))]


def _results(annotation: Mapping[str, object]) -> list[Mapping[str, object]]:
    return [mapping(each) for each in sequence(annotation.get("result"))]


def _short_results(task: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The results of JSON-MIN, which lie in the task by the names of their controls."""
    values = [value for value in task.values() if isinstance(value, list)]
    return [{"value": each} for items in values for each in items if isinstance(each, dict)]


def _rate_of_boxes(results: Sequence[Mapping[str, object]]) -> float | None:
    """Frames per second by a ``videorectangle``, which knows the video's length in both."""
    for value in (mapping(each.get("value")) for each in results):
        frames, duration = positive(value.get("framesCount")), positive(value.get("duration"))
        if frames and duration:
            return frames / duration
    return None


def _segments(item: Mapping[str, object], fps: float | None) -> Iterator[Segment]:
    value = mapping(item.get("value"))
    score = item.get("score")
    for label in sequence(value.get(_FRAMES)):
        if fps is None:
            raise BadRowError(_NO_FPS)
        for span in map(mapping, sequence(value.get("ranges"))):
            first, last = number(span.get("start"), "start"), number(span.get("end"), "end")
            if last < first:
                raise BadRowError(f"end {last:g} is before start {first:g}")
            # Frames are counted from 1; some tools begin with 0.
            start = max(first - 1, 0.0)
            yield make_segment(start / fps, max(last, start) / fps, label, score)
    if "start" in value:
        for name in _SECONDS:
            for label in sequence(value.get(name)):
                yield make_segment(value["start"], value.get("end"), label, score)


def _video(data: Mapping[str, object]) -> Path | None:
    """The file that a task is about: that with the suffix of a video, else the first address."""
    texts = [value for value in data.values() if isinstance(value, str) and value.strip()]
    named = [_name(text) for text in texts]
    found = next((name for name in named if is_video(name)), None)
    address = data.get("video") or data.get("audio")
    return path_of(found or (_name(address) if isinstance(address, str) else None))


def _name(address: str) -> str:
    """The file behind an address, as far as it is known here."""
    try:
        parts = urlsplit(address.strip())
    except ValueError:  # brackets in it
        return address
    if "/local-files/" in parts.path:
        return "".join(parse_qs(parts.query).get("d", [])[:1])
    name = unquote(parts.path)
    if "/upload/" in parts.path:
        name = _UPLOADED.sub("", name.rsplit("/", 1)[-1], count=1)
    elif parts.netloc:
        name = name.rsplit("/", 1)[-1]
    elif parts.scheme or parts.query or parts.fragment:
        name = address  # a file's name with such marks in it
    return name


def write(timelines: Sequence[Timeline], file: Path) -> str:
    """Tasks to import: with scores they have predictions, else annotations.

    Times are rounded to frames. The rate of each video, or 24 where it is not known, is its task's
    ``fps``; the interface needs ``<Video name="video" value="$video" frameRate="$fps"/>``.
    """
    tasks = [_task(video, count) for count, video in enumerate(timelines, start=1)]
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _task(video: Timeline, count: int) -> dict[str, object]:
    fps = video.fps or _DEFAULT_FPS
    scored = any(each.score is not None for each in video.segments)
    data: dict[str, object] = {"video": "" if video.path is None else str(video.path), "fps": fps}
    if video.duration is not None:
        data["duration"] = video.duration
    results = [_result(each, fps, place) for place, each in enumerate(video.segments, start=1)]
    return {
        "id": count,
        "data": data,
        "annotations": [] if scored else [{"result": results}],
        "predictions": [{"model_version": "vidfuse", "result": results}] if scored else [],
    }


def _result(segment: Segment, fps: float, place: int) -> dict[str, object]:
    first = math.floor(segment.start * fps + 0.5) + 1
    last = max(first, math.floor(segment.end * fps + 0.5))
    result: dict[str, object] = {
        "id": f"segment{place}",
        "type": _FRAMES,
        "from_name": "timelineLabels",
        "to_name": "video",
        "value": {"ranges": [{"start": first, "end": last}], _FRAMES: [segment.label]},
    }
    return result if segment.score is None else result | {"score": segment.score}
