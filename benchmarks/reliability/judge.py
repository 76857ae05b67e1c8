"""What counts as a failure, and what an attack came to."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import Lab, Run

SAME = 1e-6  # the score of a sound clip may differ by so much
SECRET = "SECRET"  # stands in files where a patient's name would, and must never be printed
CRASHES = ("Traceback (most recent call last)", "Fatal Python error", "Exception ignored in")


@dataclass(frozen=True)
class Finding:
    """What one attack came to.

    Attributes:
        part: Which part of the bench.
        what: A row of the table; findings of the same row are added up.
        happened: What happened, in a word or two.
        failures: What should not have happened.
        name: Selects this attack with ``--only``.
        run: The command that was run.
    """

    part: str
    what: str
    happened: str
    failures: list[str] = field(default_factory=list)
    name: str = ""
    run: Run | None = None


def crashes(lab: Lab, run: Run, codes: Collection[int] = (0, 1, 2)) -> list[str]:
    """What no command may do, whatever it is given."""
    found = []
    if run.hung:
        found.append(f"hangs: not ended after {lab.limit_s:g} s")
    elif run.code not in codes:
        found.append(f"exit code {run.code}{last_line(run.err)}")
    found += [f"'{word}' on stderr" for word in CRASHES if word in run.err]
    if run.memory_mb > lab.bound_mb:
        found.append(f"{run.memory_mb:.0f} MB of memory")
    if run.left_behind:
        found.append(f"{run.left_behind} processes left behind")
    if "\x1b" in run.err:
        found.append("a raw escape character on stderr")
    if SECRET in run.err or SECRET.encode() in run.out:
        found.append("a value of the file is quoted")
    return found


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f" ({lines[-1][:120]})" if lines else ""


def read_records(run: Run) -> list[dict[str, Any]]:
    """The records that a command printed as JSON lines.

    Raises:
        ValueError: A line is not JSON; NaN is not.
    """
    return [json.loads(line, parse_constant=_refuse) for line in run.out.splitlines()]


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def wrong_records(lab: Lab, run: Run, inputs: Sequence[str | Path]) -> list[str]:
    """What is wrong with the records: one for each input, in order, the sound ones as always."""
    try:
        records = read_records(run)
    except ValueError as error:
        return [f"stdout is not JSON lines: {error}"]
    missing = first_missing([os.fspath(path) for path in inputs], [r["path"] for r in records])
    if missing is not None:
        return [f"{len(records)} records for {len(inputs)} inputs; {missing}"]
    return [wrong for record in records for wrong in wrong_answer(lab, record)]


def first_missing(inputs: list[str], paths: list[str]) -> str | None:
    """Where the paths of records differ from the inputs.

    A folder has one record, or, where it is found not to be one clip, one for each of its files.
    """
    left = list(paths)
    for path in inputs:
        if not left:
            return f"the first that is missing: {path!r}"
        if left[0] == path:
            left.pop(0)
            continue
        if not left[0].startswith(f"{path}{os.sep}"):
            return f"{left[0]!r} stands where {path!r} should"
        while left and left[0].startswith(f"{path}{os.sep}"):
            left.pop(0)
    return f"one too many: {left[0]!r}" if left else None


def wrong_answer(lab: Lab, record: dict[str, Any]) -> list[str]:
    """How the record of a sound clip differs from what it always is."""
    if record["path"] not in lab.answers:
        return [] if record["ok"] or record["error"] else [f"no reason: {record['path']!r}"]
    label, score = lab.answers[record["path"]]
    if not record["ok"]:
        return [f"a sound clip failed: {record['error']}"]
    if record["label"] != label or abs(record["score"] - score) > SAME:
        return [f"a sound clip is {record['label']} {record['score']:.6f}, not {label} {score:.6f}"]
    return []
