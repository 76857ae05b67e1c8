"""Features of many clips side by side, and the frames of each that a head reads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidfuse.data.clip import Clip
from vidfuse.errors import UserError, reason_of
from vidfuse.features.cache import Entry, EntryInfo
from vidfuse.machine import free_memory
from vidfuse.video.sampling import FrameTimes, Sampling

OF_CLIPS = ("firsts", "lengths", "chosen", "chosen_lengths", "times", "starts", "ends")
"""The fields of a table that have a row for each clip."""
Kind = Literal["plain", "mirrored", "view"]
"""The clip itself, its mirror image, or one of its random views."""
MEMORY_SHARE = 0.5
"""Frames that would take more than this share of the free memory go to a file."""


class FeatureBuffer:
    """Takes features of clips as they come, each once, and gives all of them as one array.

    In memory they lie in one block. A file is mapped: its pages are read when they are asked for
    and given back when memory is short, so that the features may be larger than it. Without a
    `path` the file has no name: it is gone when nothing maps it, however the process ends.

    Args:
        clips: About how many clips will come.
        folder: Where a file may be made; None keeps everything in memory.
        path: The file, for other processes to map too; memory is not used then.
    """

    def __init__(self, clips: int, folder: Path | None = None, path: Path | None = None) -> None:
        self.clips = clips
        self.folder = folder
        self.path = path
        self.count = 0
        self._memory: NDArray[np.float16] | None = None
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def mapped(self) -> bool:
        """True if the frames are in a file."""
        return self._file is not None

    def append(self, features: NDArray[np.float16]) -> int:
        """Take over the frames of a clip ``[T, D, g, g]``; returns the place of the first.

        Raises:
            UserError: Their shape is not that of the others, or there is no room for them.
        """
        if self._memory is None and self._file is None:
            self._begin(features)
        if features.shape[1:] != self._shape:
            shapes = sorted({self._shape, features.shape[1:]})
            raise UserError(f"features of different shapes cannot be batched: {shapes}")
        first, self.count = self.count, self.count + len(features)
        if self._file is not None:
            try:
                self._file.write(np.ascontiguousarray(features).data)
            except OSError as error:
                raise self._no_room(reason_of(error)) from error
            return first
        assert self._memory is not None
        if self.count > len(self._memory):
            self._memory.resize((max(self.count, 2 * first), *self._shape), refcheck=False)
        self._memory[first : self.count] = features
        return first

    def array(self) -> NDArray[np.float16]:
        """All frames ``[F, D, g, g]``, F at least 1; nothing can be appended any more."""
        if self._file is None:
            assert self._memory is not None
            return self._memory[: self.count]
        try:
            self._file.flush()
        except OSError as error:
            raise self._no_room(reason_of(error)) from error
        return np.memmap(self._file, np.float16, "r+", shape=(self.count, *self._shape))

    def _begin(self, features: NDArray[np.float16]) -> None:
        """Choose between memory and file, by the first clip."""
        self._shape = features.shape[1:]
        size, free = self.clips * features.nbytes, free_memory()
        if self.path is None and (self.folder is None or size <= MEMORY_SHARE * free):
            self._memory = np.empty((self.clips * len(features), *self._shape), np.float16)
            return
        try:
            if self.path is not None:
                self._file = self.path.open("w+b")
                return
            assert self.folder is not None
            self.folder.mkdir(parents=True, exist_ok=True)
            if size > (room := shutil.disk_usage(self.folder).free):
                raise self._no_room(f"{size / 1e9:.1f} GB, and {room / 1e9:.1f} GB are free")
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # see `array`
        except OSError as error:
            raise self._no_room(reason_of(error)) from error

    def _no_room(self, why: str) -> UserError:
        place = self.folder if self.path is None else self.path.parent
        reason = "" if self.path is not None else ", which memory is too small for,"
        return UserError(
            f"the features side by side{reason} cannot be kept in {place} ({why})",
            "Make room there, choose a smaller --grid or fewer --frames, or another place: "
            + ("--cache." if self.path is None else "--out."),
        )


def map_buffer(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Map the file of a buffer's frames; processes that map it share its memory."""
    return np.memmap(path, np.float16, "r+", shape=shape)


@dataclass(frozen=True)
class FeatureTable:
    """Cached features of N clips; see `build_table`.

    Attributes:
        features: ``float16 [F, D, g, g]``, frames of these clips, and maybe of others, one behind
            the other, in memory or mapped from a file.
        firsts: ``int64 [N]``, index of each clip's first frame among them.
        lengths: ``int64 [N]``, number of frames that each clip has there.
        chosen: ``int64 [N, T]``, the frames that a head reads when nothing is drawn at random,
            counted from the clip's first: the same that prediction would decode.
        chosen_lengths: ``int64 [N]``, how many of them are a clip's own; the rest is padding.
        times: ``float64 [N, K]``, presentation times in seconds; infinite behind a clip's frames.
        starts: ``float64 [N]``, when each clip's first frame is shown, in seconds.
        ends: ``float64 [N]``, when each clip's last frame leaves the screen, in seconds.
        jitter: True where training draws one cached frame from each of T equal parts.
        rows: The row of each clip.
        mirrored_rows: The row of the mirrored view of each clip that has one.
        view_rows: The rows of the random views of each clip that has some.
        infos: How the features of each row came about.
        frame_labels: The class of each frame, of clips of which that is learned; None for a frame
            without one.
    """

    features: NDArray[np.float16]
    firsts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    chosen: NDArray[np.int64]
    chosen_lengths: NDArray[np.int64]
    times: NDArray[np.float64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    jitter: bool
    rows: dict[Clip, int] = field(default_factory=dict)
    mirrored_rows: dict[Clip, int] = field(default_factory=dict)
    view_rows: dict[Clip, list[int]] = field(default_factory=dict)
    infos: list[EntryInfo] = field(default_factory=list)
    frame_labels: dict[Clip, list[str | None]] = field(default_factory=dict)

    def select(self, rows: Sequence[int]) -> FeatureTable:
        """Select some rows, in the order given, without their clips; features are not copied."""
        index = np.asarray(rows, np.int64)
        changed: dict[str, Any] = {name: getattr(self, name)[index] for name in OF_CLIPS}
        return replace(self, **changed, rows={}, mirrored_rows={}, view_rows={}, infos=[])

    def views_of(self, clip: Clip, count: int) -> list[int]:
        """Rows of ``count`` random views of a clip; that of the clip for those it does not have."""
        found = self.view_rows.get(clip, [])
        return found + [self.rows[clip]] * (count - len(found))


def build_table(
    entries: Iterable[tuple[Clip, Kind, Entry]],
    sampling: Sampling,
    frames: int,
    buffer: FeatureBuffer,
) -> FeatureTable:
    """Put entries side by side as they come; none of them is kept.

    Args:
        entries: Clips, what is shown of each, and the entries.
        sampling: The rule that chooses ``frames`` of a clip's cached frames.
        frames: Number of frames T that a head reads.
        buffer: Receives the features.

    Raises:
        UserError: There are none, their features differ in shape (a native grid follows the frame
            size), or there is no room for them.
    """
    rows: dict[Kind, dict[Clip, int]] = {"plain": {}, "mirrored": {}}
    view_rows: dict[Clip, list[int]] = {}
    infos: list[EntryInfo] = []
    firsts, times, chosen = [], [], []
    for clip, kind, entry in entries:
        if kind == "view":
            view_rows.setdefault(clip, []).append(len(infos))
        else:
            rows[kind][clip] = len(infos)
        infos.append(entry.info)
        firsts.append(buffer.append(entry.features))
        times.append(entry.times)
        chosen.append(choose_frames(entry, sampling, frames))
    if not infos:
        raise UserError("no clip has features", "Look at: vidfuse inspect DATASET")
    lengths = np.array([len(each) for each in times])
    all_times = np.full((len(times), lengths.max()), np.inf)
    for row, each in enumerate(times):
        all_times[row, : len(each)] = each
    return FeatureTable(
        features=buffer.array(),
        firsts=np.array(firsts),
        lengths=lengths,
        chosen=np.stack([row for row, _ in chosen]),
        chosen_lengths=np.array([count for _, count in chosen]),
        times=all_times,
        starts=np.array([info.start for info in infos], float),
        ends=np.array([info.end for info in infos], float),
        jitter=sampling.mode == "segment",
        rows=rows["plain"],
        mirrored_rows=rows["mirrored"],
        view_rows=view_rows,
        infos=infos,
    )


def choose_frames(entry: Entry, sampling: Sampling, frames: int) -> tuple[NDArray[np.int64], int]:
    """Choose the frames of an entry that a head reads.

    Returns:
        Indices ``[frames]``, the last one repeated, and how many of them are the clip's own.
    """
    chosen = np.arange(len(entry.times))
    # What decoding chose already (every N-th frame, say) is not chosen from again.
    if len(chosen) > frames:
        frame_times = FrameTimes(entry.times, entry.info.end, start=entry.info.start)
        chosen = sampling.pick(frame_times, frames)
    return chosen[np.arange(frames).clip(max=len(chosen) - 1)], len(chosen)


def collate(
    entries: Sequence[Entry], sampling: Sampling, frames: int
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Make one batch of a few entries, with the frames that a head reads.

    Args:
        entries: At least one.
        sampling: The rule that chooses ``frames`` of a clip's cached frames.
        frames: Number of frames T of the batch; a shorter clip's last frame is repeated.

    Returns:
        Features ``float16 [B, T, D, g, g]`` and lengths ``int64 [B]``.

    Raises:
        UserError: Their features differ in shape.
    """
    if len(shapes := {entry.features.shape[1:] for entry in entries}) > 1:
        raise UserError(f"features of different shapes cannot be batched: {sorted(shapes)}")
    chosen = [choose_frames(entry, sampling, frames) for entry in entries]
    features = [entry.features[row] for entry, (row, _) in zip(entries, chosen, strict=True)]
    return np.stack(features), np.array([count for _, count in chosen])
