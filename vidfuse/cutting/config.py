"""The settings of ``cut``. Imports no decoder, so that a command line can show them."""

from __future__ import annotations

from dataclasses import dataclass

from vidfuse.settings import MachineConfig, Settings, option, parse_size, same_option


@dataclass(kw_only=True)
class CutConfig(Settings):
    """The segments that become clips, and the way in which they are written."""

    exact: bool = option(
        False,
        "Encode anew, with exactly the frames from start to end. Copying takes no time and loses "
        "nothing, and begins at the key frame before the start.",
        off="--copy",
        envvar=False,
    )
    crf: int = option(
        12,
        "Quality of --exact (H.264): 0 loses nothing, 18 nothing that one sees.",
        min=0,
        max=51,
        envvar=False,
    )
    audio: bool = option(True, "Copy the sound, too.", envvar=False)
    labels: str | None = option(
        None, "Classes to cut, with commas between.", unset="all", envvar=False
    )
    min_duration: float = option(
        0.0, "Leave out segments that are shorter, in seconds.", min=0, max=86400, envvar=False
    )
    pad: float = option(
        0.0,
        "Seconds of context before and after each segment; point events need them.",
        min=0,
        max=3600,
        envvar=False,
    )
    background: str | None = option(
        None,
        "Class of the gaps between segments, which become clips, too.",
        unset="none",
        envvar=False,
    )
    max_duration: float = option(
        10.0,
        "Seconds that a clip of the background lasts at most; longer gaps are divided.",
        above=0,
        max=86400,
        envvar=False,
    )
    fps: float | None = option(
        None,
        "Frames per second of the videos, for annotations that count frames and do not say.",
        unset="none",
        above=0,
        max=1000,
        envvar=False,
    )
    workers: int | None = same_option(MachineConfig, "workers")
    time_limit: float | None = option(
        None,
        "Seconds that a clip may take.",
        unset="120 and more for big files and long clips",
        above=0,
        panel="Machine",
        affects_result=False,
    )
    memory: str | None = same_option(MachineConfig, "memory")

    @property
    def wanted(self) -> list[str] | None:
        """The labels to cut; None is all of them."""
        if self.labels is None:
            return None
        return [name for each in self.labels.split(",") if (name := each.strip())]

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of memory that a process may take; None leaves it to the machine."""
        return None if self.memory is None else parse_size(self.memory)

    @property
    def method(self) -> str:
        """The way in which clips are written, as the manifest has it."""
        sound = "" if self.audio else ", no sound"
        return (f"exact, crf {self.crf}" if self.exact else "copy") + sound
