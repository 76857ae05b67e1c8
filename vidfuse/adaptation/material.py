"""The material of an adaptation: frames of clips, random views of them, the teacher's maps."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray

from vidfuse.adaptation.budget import READING, Budget
from vidfuse.adaptation.config import AdaptConfig
from vidfuse.adaptation.learning import Batch
from vidfuse.adaptation.teacher import Teacher, answers
from vidfuse.adaptation.views import VIEWS, Zoom, random_view, resize
from vidfuse.atomic import make_writable, writing
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import one_line
from vidfuse.progress import Reporter
from vidfuse.video.frames import FrameRequest, Frames, Pixels, squares
from vidfuse.video.pool import DecodePool

TEACHER = "teacher"
HELD_OUT = 0.15  # share of the clips
FEWEST, FEWEST_HELD_OUT = 64, 12  # frames
TOGETHER = 64  # views that the teacher sees between two looks at the clock
DECODED_AHEAD = 2  # clips for each decode process
ADVICE = "Name another folder with --cache, or take fewer --crops."


class Rows:
    """Arrays that are written one behind the other to a file without a name, and then mapped.

    Args:
        folder: Where the file is made; nothing is left of it however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        with writing(folder, ADVICE):
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as this
        self._kind: tuple[np.dtype[np.generic], tuple[int, ...]] | None = None

    def append(self, values: NDArray[np.generic]) -> None:
        """Take over ``[n, …]``, of the same type and shape each time.

        Raises:
            UnwritableError: There is no room for them.
        """
        self._kind = values.dtype, values.shape[1:]
        with writing(self.folder, ADVICE):
            self._file.write(np.ascontiguousarray(values).data)
        self.count += len(values)

    def array(self) -> NDArray[np.generic]:
        """All of them ``[N, …]``, read when they are asked for."""
        assert self._kind is not None
        with writing(self.folder, ADVICE):
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, self._kind[0]).reshape(self.count, *self._kind[1])


@dataclass(frozen=True)
class Material:
    """Views at the student's size, with what the teacher sees in them.

    Attributes:
        views: ``uint8 [N, S, S, 3]``.
        maps: The teacher's, ``float16 [N, D, 4, 4]``.
        clips: Number of clips whose frames they show.
    """

    views: NDArray[np.generic]
    maps: NDArray[np.generic]
    clips: int

    def rows(self, numbers: NDArray[np.int64] | slice, device: str) -> Batch:
        """Some of them as a batch."""
        parts = {VIEWS: self.views, TEACHER: self.maps}
        return {
            name: torch.from_numpy(np.array(each[numbers])).to(device)
            for name, each in parts.items()
        }


class Collector:
    """Collects the material of some clips.

    Args:
        folder: Where its files without names are.
        teacher: Who looks at the views.
        size: Side S of the student's frames, in pixels.
    """

    def __init__(self, folder: Path, teacher: Teacher, size: int) -> None:
        self.views, self.maps = Rows(folder), Rows(folder)
        self.teacher, self.size = teacher, size
        self.clips = self.frames = 0

    def add(self, views: Pixels) -> None:
        """Take over some views of a clip, at the larger of both networks' sizes."""
        self.maps.append(answers(self.teacher, views))
        self.views.append(resize(torch.from_numpy(views), self.size).contiguous().numpy())

    def count(self, frames: int) -> None:
        """Count a clip all of whose views were added, and the frames that they show."""
        self.clips += 1
        self.frames += frames

    def material(self) -> Material:
        """All of it."""
        return Material(self.views.array(), self.maps.array(), self.clips)


def gather(
    clips: Sequence[Clip],
    config: AdaptConfig,
    teacher: Teacher,
    size: int,
    reporter: Reporter,
    budget: Budget,
) -> tuple[Material, Material, list[InputError]]:
    """Read clips, and let the teacher look at views of them.

    With a budget clips are read in a random order, so that those that were read in time stand for
    all; none are read behind half of it where there is enough to learn from, or behind all of it.

    Args:
        clips: Where frames are taken from; labels are not looked at.
        config: How many frames, and how many crops of them.
        teacher: Who looks.
        size: Side of the student's frames, in pixels.
        reporter: Receives progress updates and warnings.
        budget: What is left of the time.

    Returns:
        Random views to learn from; whole squares of frames of other clips, to measure on; and why
        clips could not be read.

    Raises:
        UserError: So few frames could be read that nothing can be learned or measured, or the
            folder of the cache cannot be written.
    """
    chosen = choose_clips(clips, config, reporter)
    if budget.limited:
        order = np.random.default_rng((config.seed, 6)).permutation(len(chosen))
        chosen = [chosen[each] for each in order]
    apart = hold_out(chosen, config.seed)
    rng = np.random.default_rng((config.seed, 5))
    learned = [number for number, held in enumerate(apart) if not held]
    crops = dict(zip(learned, shares(config.crops, len(learned), rng), strict=True))
    make_writable(config.cache_folder, ADVICE)
    trained, held_out = (Collector(config.cache_folder, teacher, size) for _ in range(2))
    failures: list[InputError] = []
    side, read = max(teacher.size, size), 0
    reporter.start(f"Reading clips for {config.teacher}", len(chosen))
    try:
        for number, future in enumerate(_frames(chosen, config)):
            enough = trained.frames >= FEWEST and held_out.frames >= FEWEST_HELD_OUT
            until = budget.left(READING if enough else 1.0)
            if not _is_here(future, until):
                break
            read += 1
            try:
                frames = list(future.result().pixels)
            except InputError as error:
                reporter.warn(one_line(error))
                failures.append(error)
                continue
            finally:
                reporter.advance()
            if apart[number]:
                held_out.add(squares(frames, side))
                held_out.count(len(frames))
                continue
            rng = np.random.default_rng((config.seed, number))
            counts = shares(crops[number], len(frames), rng)
            repeated = [each for each, n in zip(frames, counts, strict=True) for _ in range(n)]
            for at in range(0, len(repeated), TOGETHER):
                if budget.left() <= 0:
                    break
                part = repeated[at : at + TOGETHER]
                trained.add(np.stack([random_view(each, Zoom(), rng, side) for each in part]))
            else:
                trained.count(int(np.count_nonzero(counts)))
    finally:
        reporter.finish()
    late = budget.limited and read < len(chosen)
    if late:
        reporter.info(
            f"{read} of {len(chosen)} clips were read in {budget.used():.0f} s of the budget of "
            f"{budget.text}; more with a longer --budget"
        )
    _check(trained.frames, held_out.frames, failures, budget if late else None)
    return trained.material(), held_out.material(), failures


def _is_here(future: Future[Frames], seconds: float) -> bool:
    """Wait for a clip, as long as there is time."""
    if seconds == inf:
        return True
    return seconds > 0 and bool(wait([future], seconds).done)


def shares(total: int, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A total in whole parts that differ by one at most; which are larger is drawn."""
    return (total + rng.permutation(parts)) // parts


def choose_clips(clips: Sequence[Clip], config: AdaptConfig, reporter: Reporter) -> list[Clip]:
    """All clips, or as many, drawn at random, as ``config.crops`` are enough for."""
    most = max(1, config.crops // config.frames)
    if len(clips) <= most:
        return list(clips)
    rng = np.random.default_rng((config.seed, 1))
    reporter.info(f"{most} of {len(clips)} clips are read; more with --crops")
    return [clips[each] for each in sorted(rng.choice(len(clips), most, replace=False))]


def hold_out(clips: Sequence[Clip], seed: int) -> list[bool]:
    """Choose the clips to measure on: the groups, or files, that come first in a random order."""
    sources = [clip.group or str(clip.path) for clip in clips]
    names = sorted(set(sources))
    apart: set[str] = set()
    for number in np.random.default_rng((seed, 2)).permutation(len(names)):
        if sum(source in apart for source in sources) >= HELD_OUT * len(clips):
            break
        apart.add(names[number])
    return [source in apart for source in sources]


def _frames(clips: Sequence[Clip], config: AdaptConfig) -> Iterator[Future[Frames]]:
    """The frames of each clip, in order; a few clips are decoded ahead."""
    pending: deque[Future[Frames]] = deque()
    limits = config.workers, config.time_limit, None, config.memory_bytes
    with DecodePool(config.decoder, *limits) as pool:
        for clip in clips:
            pending.append(
                pool.submit(
                    FrameRequest(
                        str(clip.path),
                        "uniform",
                        config.frames,
                        clip.start,
                        clip.end,
                        fps=config.fps,
                    )
                )
            )
            if len(pending) > DECODED_AHEAD * pool.active:
                yield pending.popleft()
        while pending:
            yield pending.popleft()


def _check(
    trained: int, held_out: int, failures: Sequence[InputError], late: Budget | None
) -> None:
    """See that there is enough.

    Raises:
        UserError: There is not; where the budget ``late`` was over, it says so.
    """
    if trained >= FEWEST and held_out >= FEWEST_HELD_OUT:
        return
    unread = f" ({len(failures)} clips could not be read)" if failures else ""
    if late is not None:
        raise UserError(
            f"the budget of {late.text} was over before there was enough to learn from: "
            f"{trained} frames to learn from and {held_out} of other clips to measure on were "
            f"read, and {FEWEST} and {FEWEST_HELD_OUT} are needed{unread}; nothing was written",
            "Give more time with --budget, or take fewer --crops.",
        )
    raise UserError(
        f"too few frames: {trained} to learn from and {held_out} of other clips to measure on, "
        f"and {FEWEST} and {FEWEST_HELD_OUT} are needed{unread}",
        "Give more clips, of more than one group, or take more of each with --frames and --crops.",
    )
