"""How time and memory of an extraction grow with the number of clips.

    python benchmarks/growth.py CLIP [CLIP ...] [--counts 10,100,1000,10000] [--folder DIR] \
        [--options "OPTIONS OF vidfuse extract"] [--out result.json]

For every count, so many copies of the clips, each with a content of its own, are extracted by one
`vidfuse extract` into an empty cache, and then by a second one that finds everything there. Of each
the seconds and the most memory that the command and its processes have together (on Linux; pages
that they share count once) are reported. The precision is pinned, since it is chosen by the number
of clips otherwise. A start takes its time whatever the number, so what grows is what the clips of
one count take beyond those of the count before.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

EXTRACT = [sys.executable, "-m", "vidfuse", "extract"]
GAP = 0.5  # seconds between two looks at the memory: a look stops what it looks at


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--counts", type=counts, default=[10, 100, 1000, 10000])
    parser.add_argument("--folder", help="where copies are made, and removed")
    parser.add_argument("--options", type=shlex.split, default=[])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for count in arguments.counts:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows.append(measure(arguments.clips, count, Path(folder), arguments.options))
        print(rows[-1], file=sys.stderr, flush=True)
    report = {"rows": rows, "growth": growth(rows)}
    print(markdown(report))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def counts(text: str) -> list[int]:
    return sorted(map(int, text.split(",")))


def measure(clips: list[Path], count: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """Extract copies of clips twice."""
    copies = folder / "copies"
    copies.mkdir()
    for number in range(count):
        clip = clips[number % len(clips)]
        copy = copies / f"{number:06d}{clip.suffix}"
        shutil.copyfile(clip, copy)
        with copy.open("ab") as file:
            file.write(number.to_bytes(8, "big"))
    time.sleep(0.2)  # hashes of files that were changed just now are not remembered
    words = [*EXTRACT, str(copies), "--cache", str(folder / "cache"), "--precision", "fp32"]
    words += ["--format", "json", *options]
    first, second = command(words), command(words)
    if (first["computed"], second["reused"]) != (count, count):
        raise SystemExit(f"{count} clips: {first}, {second}")
    return {
        "clips": count,
        "seconds": first["seconds"],
        "memory_mb": first["memory_mb"],
        "again_seconds": second["seconds"],
        "again_memory_mb": second["memory_mb"],
    }


def command(words: list[str]) -> dict[str, Any]:
    """What a command answers, its seconds, and the most memory of it and its processes."""
    began = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(GAP):
            most[0] = max(most[0], session_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer, _ = process.communicate()
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    found = json.loads(answer)
    counted = {name: found[name] for name in ("computed", "reused")}
    return {**counted, "seconds": seconds, "memory_mb": most[0]}


def session_memory(leader: int) -> float:
    """Megabytes of all processes that a session leader started; shared pages count once."""
    total = 0
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else []:
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                text = (entry / "smaps_rollup").read_text()
                total += int(text.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    return total / 1000


def growth(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Time per additional clip, from one count to the next."""
    return [
        {
            "from": one["clips"],
            "to": other["clips"],
            "milliseconds_per_clip": _slope(one, other, "seconds"),
            "again_milliseconds_per_clip": _slope(one, other, "again_seconds"),
        }
        for one, other in pairwise(rows)
    ]


def _slope(one: dict[str, Any], other: dict[str, Any], name: str) -> float:
    return float(1000 * (other[name] - one[name]) / (other["clips"] - one["clips"]))


def markdown(report: dict[str, Any]) -> str:
    further = {each["to"]: each for each in report["growth"]}
    lines = [
        "| clips | s | ms per additional clip | MB "
        "| second run (cached), s | ms per additional clip | MB |",
        "|" + "---|" * 7,
    ]
    for row in report["rows"]:
        slope = further.get(row["clips"], {})
        each, again = (
            f"{slope[name]:.2f}" if slope else ""
            for name in ("milliseconds_per_clip", "again_milliseconds_per_clip")
        )
        lines.append(
            f"| {row['clips']:,} | {row['seconds']:.1f} | {each} | {row['memory_mb']:.0f} | "
            f"{row['again_seconds']:.1f} | {again} | {row['again_memory_mb']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
