"""Clips of every format, damaged at random, hundreds in one `vidfuse predict`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from judge import Finding, crashes, read_records, wrong_records
from lab import Lab
from sources import make_sources

PART = "damaged"
COUNT = 600
AT_ONCE = 200  # clips in a command
Way = Callable[[bytes, np.random.Generator], bytes]


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(1, len(content)))]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for at in rng.integers(0, len(content), int(rng.integers(1, 100))):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def overwrite_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes among the first 512, where sizes and offsets stand."""
    damaged = bytearray(content)
    for at in rng.integers(0, min(512, len(content)), int(rng.integers(1, 12))):
        damaged[at] = int(rng.integers(256))
    return bytes(damaged)


def zero_blocks(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at, size = rng.integers(0, len(content)), rng.integers(1, len(content) // 4 + 2)
        damaged[at : at + size] = bytes(len(damaged[at : at + size]))
    return bytes(damaged)


def swap_blocks(content: bytes, rng: np.random.Generator) -> bytes:
    a, b, c = np.sort(rng.integers(0, len(content), 3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def header_only(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(4, 200))]


def random_bytes(_content: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(1, 100_000)))


def random_after_header(content: bytes, rng: np.random.Generator) -> bytes:
    return content[:64] + rng.bytes(max(1, len(content) - 64))


def twice(content: bytes, rng: np.random.Generator) -> bytes:
    """Concatenated with itself, cut anywhere."""
    return content + content[int(rng.integers(len(content))) :]


def empty(_content: bytes, _rng: np.random.Generator) -> bytes:
    return b""


def remove_block(content: bytes, rng: np.random.Generator) -> bytes:
    a, b = np.sort(rng.integers(0, len(content), 2))
    return content[:a] + content[b:]


def sound(content: bytes, _rng: np.random.Generator) -> bytes:
    """Nothing but a wrong suffix, or a hole at the end: see ``write``."""
    return content


WAYS: dict[str, Way] = {
    "truncated": truncate,
    "bits flipped": flip,
    "header overwritten": overwrite_header,
    "blocks zeroed": zero_blocks,
    "blocks swapped": swap_blocks,
    "header only": header_only,
    "random bytes": random_bytes,
    "random after the header": random_after_header,
    "concatenated": twice,
    "a block removed": remove_block,
    "empty": empty,
    "wrong suffix": sound,
    "hole at the end": sound,
}


def attack(lab: Lab, count: int) -> Iterator[Finding]:
    """Damage clips, each with a seed of its own, and predict them."""
    folder = lab.place(PART)
    sources = [*make_sources(lab.place("sources")), *lab.clips]
    plan = plan_damage(lab.seed, sources, count)
    chosen = [pair for pair in plan if lab.only in pair[0]]
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        clips = [
            write(
                folder, name, source, way, np.random.default_rng([lab.seed, int(name[:5])]), sources
            )
            for name, source, way in part
        ]
        yield from predict(lab, [way for *_, way in part], clips)


def plan_damage(seed: int, sources: list[Path], count: int) -> list[tuple[str, Path, str]]:
    """Name, source and way of each damaged clip; the same whatever is chosen of them."""
    pairs = [(source, way) for source in sources for way in WAYS]
    order = np.random.default_rng(seed).permutation(len(pairs))
    drawn = [pairs[order[i % len(pairs)]] for i in range(count)]
    return [
        (f"{i:05}_{source.stem}_{way.replace(' ', '_')}", source, way)
        for i, (source, way) in enumerate(drawn)
    ]


def write(
    folder: Path,
    name: str,
    source: Path,
    way: str,
    rng: np.random.Generator,
    sources: list[Path],
) -> Path:
    """A damaged copy of a clip; of a folder of frames half of the files are damaged."""
    if source.is_dir():
        clip = folder / name
        shutil.copytree(source, clip)
        files = [file for file in sorted(clip.iterdir()) if rng.random() < 0.5]
    else:
        clip = folder / f"{name}{source.suffix}"
        shutil.copyfile(source, clip)
        files = [clip]
    suffixes = sorted({other.suffix for other in sources if other.suffix} - {source.suffix})
    for file in files:
        file.write_bytes(WAYS[way](file.read_bytes(), rng))
        if way == "hole at the end":
            with file.open("r+b") as hole:
                hole.truncate(file.stat().st_size + int(rng.integers(1, 2**26)))
        if way == "wrong suffix":
            renamed = file.with_suffix(str(rng.choice(suffixes)))
            file.rename(renamed)
            clip = renamed if file == clip else clip
    return clip


def predict(lab: Lab, ways: list[str], clips: list[Path]) -> list[Finding]:
    """One command for many clips, sound ones at both ends and in the middle."""
    middle = len(clips) // 2
    inputs = [lab.sound[0], *clips[:middle], lab.sound[1], *clips[middle:], lab.sound[0]]
    run = lab.run(("predict", *inputs, "--model", lab.model, "--format", "jsonl"))
    failures = crashes(lab, run, (0, 1)) + wrong_records(lab, run, inputs)
    name = f"{clips[0].name[:5]} to {clips[-1].name[:5]}"
    what = f"`predict` of {len(clips)} damaged clips and 3 sound ones"
    happened = f"{run.seconds:.0f} s, {run.memory_mb:.0f} MB"
    findings = [Finding(PART, what, happened, failures, name, run)]
    if failures:
        return findings
    records = {record["path"]: record for record in read_records(run)}
    for way, clip in zip(ways, clips, strict=True):
        record = records.get(str(clip))
        happened = "refused"
        if record is None:
            happened = "its files answered one by one"
        elif record["ok"]:
            happened = "answered with a warning" if record["warnings"] else "answered"
        findings.append(Finding(PART, way, happened, [], clip.name, run))
    return findings
