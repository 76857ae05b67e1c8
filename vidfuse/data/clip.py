"""The clip: one labelled piece of video, and the set of them that a dataset folder holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of video with what is known about it.

    Attributes:
        path: The video file (or frame folder).
        label: Its class, or None when unknown.
        group: What must not straddle a split (a person, a source film, a recording).
        split: ``"train"``, ``"val"`` or ``"test"`` where the dataset says so.
        start: First second of the clip within the file; None is the beginning.
        end: Second at which the clip ends (exclusive); None is the end of the file.
    """

    path: Path
    label: str | None = None
    group: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None

    @property
    def name(self) -> str:
        """The path as text, with the segment where there is one."""
        if self.start is None and self.end is None:
            return str(self.path)
        end = "" if self.end is None else f"{self.end:g}"
        return f"{self.path}[{self.start or 0:g}-{end}]"


@dataclass(frozen=True, slots=True)
class Dataset:
    """The clips of a dataset folder, and what is known about them.

    Attributes:
        root: The folder (or manifest file) it was read from.
        layout: Name of the layout that recognised it.
        clips: Every clip that exists on disk, in a stable order.
        split_source: Where the clips' ``split`` comes from (such as ``"trainlist01.txt"``),
            None when the dataset declares no split.
        problems: What was found wrong (missing files, empty classes), one line each.
        split_number: Which of several official splits was read (``"1"``), None where the
            dataset has no numbered ones.
        frame_classes: Of clips that hold several classes, all of them; others have their label.
    """

    root: Path
    layout: str
    clips: list[Clip]
    split_source: str | None = None
    problems: list[str] = field(default_factory=list)
    split_number: str | None = None
    frame_classes: Mapping[Clip, Collection[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A short name, used for run folders; ``manifest.csv`` goes by its folder."""
        path = self.root.absolute() if self.root.name not in ("", "..") else self.root.resolve()
        if path.is_file():
            path = path.parent if path.stem.casefold() == "manifest" else path.with_suffix("")
        return path.name or "dataset"

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return sorted({clip.label for clip in self.clips if clip.label is not None})

    def count(self, attribute: str) -> Counter[str | None]:
        """Number of clips for each value of a clip attribute (``label``, ``group``, ``split``)."""
        return Counter(getattr(clip, attribute) for clip in self.clips)
