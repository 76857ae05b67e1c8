"""Machines that lack something: memory, descriptors, room, streams, folders, variables."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from judge import Finding, crashes, wrong_records
from lab import Lab, Words

PART = "resources"
COUNT = 1000  # all of them
PREDICT, TRAIN, EXTRACT, HEADS = "predict", "train", "extract", "heads"
RUN = 'exec "$@"'


@dataclass(frozen=True)
class Situation:
    """A command where something is missing.

    Attributes:
        kind: Row of the table.
        shell: Line of bash around the command ``"$@"``; {place} is an empty folder.
        command: Which command of vidfuse.
        codes: Exit codes that are right.
        whole: Whether its results must be complete all the same.
    """

    kind: str
    shell: str
    command: str
    codes: Collection[int] = (0, 1, 2)
    whole: bool = False


def mounted(options: str, then: str = RUN) -> str:
    """A line that mounts something where only the command sees it; needs root."""
    return f"exec unshare -m bash -c '{options} && {then}' bash \"$@\""


OWN_CACHE = 'exec env VIDFUSE_CACHE={place} "$@"'
SMALL_DISK = "mount -t tmpfs -o size=40k tmpfs {place}"
READ_ONLY = "mount -t tmpfs -o ro tmpfs {place}"
STREAMS, ROOM, LIMITS, FOLDERS, WORDS = (
    "streams closed, full or gone",
    "a full disk, or a file size limit",
    "a limit of memory or descriptors",
    "folders gone, read-only or not there",
    "environment variables",
)
ALL = [
    Situation(STREAMS, 'exec "$@" >&-', PREDICT),
    Situation(STREAMS, 'exec "$@" >&-', HEADS),
    Situation(STREAMS, 'exec "$@" >/dev/full', PREDICT, (2,)),
    Situation(STREAMS, 'exec "$@" >/dev/full', HEADS, (2,)),
    Situation(STREAMS, 'exec "$@" 2>&-', PREDICT, (1,), True),
    Situation(STREAMS, 'exec "$@" 2>/dev/full', PREDICT, (1,), True),
    Situation(STREAMS, '"$@" 2> >(true)', PREDICT, (1,), True),
    Situation(STREAMS, '"$@" 2> >(head -c 1 >/dev/null)', PREDICT, (1,), True),
    Situation(STREAMS, '"$@" | true', PREDICT, (0, 1)),
    Situation(STREAMS, 'set -o pipefail; "$@" | head -c 1 >/dev/null', PREDICT, (0, 1)),
    Situation(STREAMS, 'exec "$@" <&-', PREDICT, (1,), True),
    Situation(STREAMS, 'exec "$@" >&- 2>&- <&-', PREDICT),
    Situation(STREAMS, '"$@" 2>&1 | head -1 >/dev/null', TRAIN, (0,), True),
    Situation(STREAMS, 'exec "$@" >&-', TRAIN, (0, 2), True),
    Situation(STREAMS, 'exec "$@" 2>&-', TRAIN, (0,), True),
    Situation(STREAMS, 'exec "$@" 2>/dev/full', TRAIN, (0,), True),
    Situation(STREAMS, 'exec "$@" >/dev/full', TRAIN, (2,), True),
    Situation(STREAMS, 'exec "$@" 2>/dev/full', EXTRACT, (0,)),
    Situation(STREAMS, 'exec "$@" >&-', EXTRACT),
    *[Situation(ROOM, f"ulimit -f {n}; {RUN}", TRAIN) for n in (0, 1, 4, 16, 64, 256, 1024)],
    *[Situation(ROOM, f"ulimit -f {n}; {RUN}", EXTRACT) for n in (0, 1, 4, 16, 64)],
    *[Situation(ROOM, f"ulimit -f {n}; {RUN}", PREDICT) for n in (0, 1, 4)],
    Situation(ROOM, mounted(SMALL_DISK, OWN_CACHE), PREDICT, (1,), True),
    Situation(ROOM, mounted(SMALL_DISK, OWN_CACHE), EXTRACT, (1, 2)),
    Situation(ROOM, mounted(SMALL_DISK), TRAIN, (2,)),
    Situation(ROOM, mounted(SMALL_DISK), EXTRACT, (2,)),
    *[Situation(LIMITS, f"ulimit -v {n}00000; {RUN}", PREDICT) for n in (2, 4, 8, 12, 16, 24, 40)],
    *[Situation(LIMITS, f"ulimit -v {n}00000; {RUN}", TRAIN) for n in (8, 16, 24, 40)],
    *[Situation(LIMITS, f"ulimit -n {n}; {RUN}", PREDICT) for n in (5, 8, 12, 16, 20, 24, 32, 64)],
    *[Situation(LIMITS, f"ulimit -n {n}; {RUN}", TRAIN) for n in (8, 16, 32)],
    Situation(LIMITS, f"ulimit -s 256; {RUN}", PREDICT),
    Situation(LIMITS, f"ulimit -l 0; {RUN}", PREDICT, (1,), True),
    *[
        Situation(FOLDERS, f"mkdir {{place}}/x; cd {{place}}/x; rmdir ../x; {RUN}", command)
        for command in (PREDICT, TRAIN, EXTRACT, HEADS)
    ],
    Situation(FOLDERS, 'exec env TMPDIR=/nowhere "$@"', PREDICT, (1,), True),
    Situation(FOLDERS, 'exec env TMPDIR=/nowhere "$@"', TRAIN, (0,), True),
    Situation(FOLDERS, 'exec env HOME=/nowhere XDG_CACHE_HOME=/nowhere "$@"', PREDICT, (1,), True),
    Situation(FOLDERS, 'exec env VIDFUSE_CACHE=/proc/vidfuse "$@"', PREDICT, (1,), True),
    Situation(FOLDERS, 'exec env VIDFUSE_CACHE=/proc/vidfuse "$@"', EXTRACT, (2,)),
    Situation(FOLDERS, 'exec env VIDFUSE_CACHE=/dev/null "$@"', PREDICT, (1, 2)),
    Situation(FOLDERS, 'exec env VIDFUSE_CACHE=/dev/null/x "$@"', EXTRACT, (2,)),
    Situation(FOLDERS, mounted(READ_ONLY, OWN_CACHE), PREDICT, (1,), True),
    Situation(FOLDERS, mounted(READ_ONLY), TRAIN, (2,)),
    Situation(FOLDERS, mounted(READ_ONLY), EXTRACT, (2,)),
    Situation(FOLDERS, mounted("mount -t tmpfs -o ro tmpfs /dev/shm"), PREDICT, (1,), True),
    Situation(FOLDERS, mounted("mount -t tmpfs -o size=4k tmpfs /dev/shm"), PREDICT, (1,), True),
    Situation(FOLDERS, mounted("mount -t tmpfs -o size=4k tmpfs /dev/shm"), TRAIN, (0,), True),
    *[
        Situation(WORDS, f'exec env {words} "$@"', PREDICT, (1,), True)
        for words in (
            "-u HOME", "-u HOME -u XDG_CACHE_HOME", "-u PATH", "LC_ALL=C PYTHONUTF8=0", "TERM=dumb",
            "PYTHONIOENCODING=ascii", "COLUMNS=1", "PYTHONOPTIMIZE=2", "OMP_NUM_THREADS=64",
            "PYTHONMALLOC=debug", "TZ=nowhere", "PYTHONDEVMODE=1",
        )
    ],
    *[
        Situation(WORDS, f"exec env {words} \"$@\"", PREDICT, codes)
        for words, codes in {
            "VIDFUSE_TIME_LIMIT=1e12": (1,), "VIDFUSE_TIME_LIMIT=nan": (2,),
            "VIDFUSE_TIME_LIMIT=-1": (2,), "VIDFUSE_WORKERS=0": (2,), "VIDFUSE_WORKERS=x": (2,),
            "VIDFUSE_DEVICE=nowhere": (2,), "VIDFUSE_PRECISION=fp1": (2,),
            "VIDFUSE_MODEL=/nowhere": (1, 2),
        }.items()
    ],
]  # fmt: skip


def attack(lab: Lab, count: int) -> Iterator[Finding]:
    """Each situation once."""
    order = np.random.default_rng(lab.seed).permutation(len(ALL))[:count]
    chosen = [ALL[i] for i in sorted(order) if lab.only in f"{ALL[i].command}: {ALL[i].shell}"]
    can_mount = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    for situation in chosen:
        if can_mount or "mount" not in situation.shell:
            yield try_one(lab, situation)


def try_one(lab: Lab, situation: Situation) -> Finding:
    place = lab.place(PART)
    inputs = [lab.sound[0], lab.folder / "no such clip.mp4", lab.sound[1]]
    words: dict[str, Words] = {
        PREDICT: ("predict", *inputs, "--model", lab.model, "--format", "jsonl"),
        TRAIN: ("train", lab.dataset(8), "--out", place / "run", "--epochs", "2", "--frames", "8"),
        EXTRACT: ("extract", *lab.sound, "--out", place / "out"),
        HEADS: ("heads",),
    }
    # What is not about the cache must fail behind it.
    cache = None if situation.command == PREDICT else lab.warm
    shell = situation.shell.format(place=place)
    run = lab.run(words[situation.command], shell=shell, cache=cache)
    failures = crashes(lab, run, situation.codes)
    if situation.whole and situation.command == PREDICT:
        failures += wrong_records(lab, run, inputs)
    model = place / "run" / "model.safetensors"
    if situation.whole and situation.command == TRAIN and not model.exists():
        failures.append("no model was left")
    failures += [f"half-written: {path.name}" for path in place.rglob("*.partial")]
    name = f"{situation.command}: {situation.shell}"
    return Finding(PART, situation.kind, f"exit code {run.code}", failures, name, run)
