"""Files that are replaced while `extract` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from judge import Finding, crashes
from kills import different_entries, entries, many_clips
from lab import Lab, Moment, Words

PART = "swap"
COUNT = 5
CLIPS = 60
SWAPS = 30  # in each run


def attack(lab: Lab, count: int) -> Iterator[Finding]:
    """Replace clips by other ones at random moments; each entry must be what its name says.

    An entry's name is made from the content, so a clean extraction of all contents says what must
    stand under each name. Names of contents that were half written are not known there; those
    entries are counted and cannot be judged.
    """
    contents = [path.read_bytes() for path in sorted(many_clips(lab, 2 * CLIPS).glob("*.mp4"))]
    clean = lab.place("clean_swap")
    words: Words = ("extract", lab.folder / f"clips{2 * CLIPS}", "--precision", "fp32")
    whole = lab.expect_success(words, cache=clean)
    for number in range(count):
        name = f"extract and replace #{number}"
        if lab.only not in name:
            continue
        rng = np.random.default_rng([lab.seed, number])
        folder, cache = lab.place(PART), lab.place("swapped")
        paths = [folder / f"{i:03}.mp4" for i in range(CLIPS)]
        for path, content in zip(paths, contents[:CLIPS], strict=True):
            path.write_bytes(content)
        chosen = rng.choice(CLIPS, SWAPS, replace=False)
        moments: list[Moment] = [
            (
                float(rng.uniform(0.1, 0.8) * whole.seconds),
                replacing(paths[i], contents[CLIPS + i], rng),
            )
            for i in chosen
        ]
        words = ("extract", folder, "--precision", "fp32", "--max-failed", "1")
        run = lab.run(words, cache=cache, moments=moments)
        failures = crashes(lab, run, (0, 1)) + different_entries(clean, cache)
        failures += crashes(lab, lab.run(("cache", "verify"), cache=cache), (0,))
        strange = len(set(entries(cache)) - set(entries(clean)))
        happened = f"exit code {run.code}" + (f", {strange} of torn content" if strange else "")
        what = f"`extract` of {CLIPS} clips while {SWAPS} are replaced: entries are what they say"
        yield Finding(PART, what, happened, failures, name, run)


def replacing(
    path: Path, content: bytes, rng: np.random.Generator
) -> Callable[[psutil.Process], None]:
    """Puts another content at a path: by renaming, or written in place."""
    by_rename = rng.random() < 0.5

    def replace(_process: psutil.Process) -> None:
        if by_rename:
            other = path.with_suffix(".new")
            other.write_bytes(content)
            other.replace(path)
        else:
            with path.open("r+b") as file:
                file.write(content)
                file.truncate()

    return replace
