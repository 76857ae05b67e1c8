"""The order to cut a clip from a video, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

CONTAINERS = {
    ".mp4": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".ts": "mpegts",
    ".avi": "avi",
}
"""Suffixes of the clips that are written, and the names by which FFmpeg knows their containers."""

EXACT_SUFFIX = ".mp4"
_COPIED_TO = {".m4v": ".mp4", ".mts": ".ts", ".m2ts": ".ts", ".qt": ".mov"}


def copied_suffix(suffix: str) -> str:
    """The suffix of a clip whose packets are copied from a file of this suffix.

    Containers that are not written become Matroska, which holds nearly everything.
    """
    suffix = suffix.lower()
    suffix = _COPIED_TO.get(suffix, suffix)
    return suffix if suffix in CONTAINERS else ".mkv"


@dataclass(frozen=True, slots=True)
class CutJob:
    """An order to write a part of a video as a file.

    Attributes:
        source: The video.
        target: The file to write; an existing one is replaced.
        suffix: The one of ``CONTAINERS`` that says what is written, whatever the target is called.
        start: First second of the part in the video.
        end: Second at which it ends (exclusive).
        exact: True to encode the frames anew, False to copy packets.
        crf: Quality of encoding, from 0 (lossless) to 51.
        sound: Whether sound is copied.
        dry: Whether to say what would come out, and write nothing.
    """

    source: str
    target: str
    suffix: str
    start: float
    end: float
    exact: bool = False
    crf: int = 12
    sound: bool = True
    dry: bool = False


@dataclass(frozen=True, slots=True)
class CutOutcome:
    """The outcome of an order.

    Attributes:
        start: When the first frame of the part is shown in the source, in seconds.
        end: When the last one leaves the screen there.
        early: Seconds by which the clip holds more before that frame, from a key frame on.
        late: Seconds by which it shows more after the part.
        clip_start: Where the part begins in the clip; None where the clip begins with it, as
            players and vidfuse show it.
        clip_end: Where it ends in the clip; None where the clip ends with it.
        warnings: What went wrong without being fatal.
    """

    start: float
    end: float
    early: float = 0.0
    late: float = 0.0
    clip_start: float | None = None
    clip_end: float | None = None
    warnings: list[str] = field(default_factory=list)
