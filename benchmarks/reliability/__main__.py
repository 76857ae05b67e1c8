"""Attack vidfuse through its command line, and say what happened.

    python benchmarks/reliability [CLIPS ...] [--parts damaged,crafted,kills,...] [--count N] \
        [--seed 0] [--only TEXT] [--limit 120] [--memory-bound 3000] [--keep] [--out result.json]

`damaged`    clips of every format, damaged at random, hundreds in one `vidfuse predict`
`crafted`    files that somebody made to hurt, each beside sound clips
`kills`      processes killed at random moments, and the same command once more
`resources`  streams closed or full, limits of memory, descriptors and room, folders gone
`models`     model files that say what is not so
`swap`       files replaced while `extract` reads them

CLIPS are damaged besides those that are made here from sample_data. `--count` is how many of each
part (of each kind of kill). Prints a Markdown table: what was tried, how often, what happened. Ends
with exit code 1 if anything happened that should not, and lists it with the way to repeat it: the
options that select this attack alone, and the command that vidfuse got. Everything is random by the
seed alone, apart from what the moment of a kill meets. Linux only; mounts are tried where allowed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import crafted
import damaged
import kills
import models
import resources
import swap
from judge import Finding
from lab import Lab

PARTS = {part.PART: part for part in (damaged, crafted, kills, resources, models, swap)}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="attacks with this text in their names")
    parser.add_argument("--limit", type=float, default=120, help="seconds of a command")
    parser.add_argument("--memory-bound", type=float, default=3000, help="MB of a command")
    parser.add_argument("--folder", help="where files are made, and removed")
    parser.add_argument("--keep", action="store_true", help="leave the files there")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    clips = [clip.resolve() for clip in arguments.clips]
    if missing := [clip for clip in clips if not clip.exists()]:
        parser.error(f"no such clip: {missing[0]}")
    lab = Lab(
        folder=Path(tempfile.mkdtemp(prefix="reliability-", dir=arguments.folder)).resolve(),
        clips=clips,
        seed=arguments.seed,
        limit_s=arguments.limit,
        bound_mb=arguments.memory_bound,
        only=arguments.only,
    )
    findings: list[Finding] = []
    try:
        lab.prepare()
        for name in arguments.parts:
            part = PARTS[name]
            count = part.COUNT if arguments.count is None else arguments.count
            for finding in part.attack(lab, count):
                findings.append(finding)
                print(failure_text(finding, arguments), end="", flush=True)
    finally:  # also what was found before an interruption
        if not arguments.keep:
            shutil.rmtree(lab.folder, ignore_errors=True)
        print(markdown(table(findings)))
        if arguments.out:
            text = json.dumps({"rows": table(findings), "failures": failures(findings)}, indent=2)
            arguments.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(any(finding.failures for finding in findings))


def table(findings: list[Finding]) -> list[dict[str, Any]]:
    """A row for each kind of attack: how often it was tried, how often it held, what happened."""
    rows = []
    for part, what in dict.fromkeys((finding.part, finding.what) for finding in findings):
        same = [each for each in findings if (each.part, each.what) == (part, what)]
        runs = [each.run for each in same if each.run]
        happened = Counter(each.happened for each in same if each.happened)
        rows.append(
            {
                "part": part,
                "what": what,
                "tried": len(same),
                "failed": sum(bool(each.failures) for each in same),
                "happened": dict(happened.most_common()),
                "seconds": max((run.seconds for run in runs), default=0.0),
                "memory_mb": max((run.memory_mb for run in runs), default=0.0),
            }
        )
    return rows


def failures(findings: list[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "part": each.part,
            "name": each.name,
            "failures": each.failures,
            "command": each.run.line if each.run else None,
        }
        for each in findings
        if each.failures
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| part | what | tried | failed | what happened | s | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        happened = ", ".join(f"{count} {word}" for word, count in row["happened"].items())
        lines.append(
            f"| {row['part']} | {row['what']} | {row['tried']} | {row['failed']} | {happened} "
            f"| {row['seconds']:.0f} | {row['memory_mb']:.0f} |"
        )
    return "\n".join(lines)


def failure_text(finding: Finding, arguments: argparse.Namespace) -> str:
    """What should not have happened, and how to repeat it; nothing where all was well."""
    if not finding.failures:
        return ""
    options = ["--parts", finding.part, "--seed", str(arguments.seed), "--only", finding.name]
    if arguments.count is not None:
        options += ["--count", str(arguments.count)]
    lines = [f"FAILED {finding.part}: {finding.name}", *finding.failures]
    lines.append(f"again: python benchmarks/reliability {shlex.join(options)}")
    if finding.run:
        lines.append(finding.run.line[:1000])
    return "\n  ".join(lines) + "\n"


if __name__ == "__main__":
    main()
