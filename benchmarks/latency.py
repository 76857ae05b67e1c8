"""How long a user waits for `vidfuse predict`, cold and as a stream.

    python benchmarks/latency.py CLIP [CLIP ...] --model MODEL [--runs 10] [--before CHECKOUT] \
        [--cold] [--no-cache] [--out result.json]

Cold: `vidfuse predict CLIP --model MODEL` with an empty feature cache, or with `--no-cache`, in
turn with `python -c "import torch"` and, with `--before`, the same command of another checkout of
vidfuse; the first clip only. Where its time goes is what the command itself says (`--format json`);
`startup` is what comes before that, `exit` what follows the answer, `other` what it gives no name
to. `--cold` measures nothing else.

Stream: one `vidfuse predict -` is given a clip at a time and answers it before it is given the
next. In turn with that, decoding (in a decode process that runs already) and the forward pass of
the same clip are each timed alone, in a process of their own. Every clip is asked about under a
content of its own, so that the cache has none of them.

Prints a Markdown table; seconds, or milliseconds where it says so. `cpu` is user and system time
with that of decode processes: unlike wall time it is much the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from checkout import VIDFUSE, environment

from vidfuse.data.clip import Clip
from vidfuse.inference.config import InferenceConfig
from vidfuse.inference.predictor import Predictor, find_model
from vidfuse.progress import Reporter

IMPORT_TORCH = [sys.executable, "-c", "import torch"]
PREDICT = [sys.executable, "-m", "vidfuse", "predict"]
SETTLED = 0.15  # seconds after which a new file's hash is remembered, as that of older files is
TARGET_COLD, TARGET_STREAM = 1.4, 1.2
KINDS = ("median", "min")
Row = dict[str, float]


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        cold = measure_cold(arguments, Path(scratch))
        stream = None if arguments.cold else measure_stream(arguments, Path(scratch))
    result = {"machine": machine(), "clips": arguments.clips, "cold": cold, "stream": stream}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")
    print(markdown(cold, stream))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--out")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def measure_cold(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The commands in turn: medians and minima of each, and their ratios."""
    asked = ["predict", arguments.clips[0], "--model", arguments.model, "--format", "json"]
    commands: dict[str, tuple[list[str], dict[str, str] | None]] = {
        "import torch": (IMPORT_TORCH, None),
        "predict": ([sys.executable, "-m", "vidfuse", *asked], None),
    }
    if arguments.before:
        before = [sys.executable, *VIDFUSE, *asked]
        commands["predict before"] = before, environment(arguments.before)
    rows: dict[str, list[Row]] = {name: [] for name in commands}
    for run in range(arguments.runs):
        for name, (words, variables) in commands.items():
            if words is IMPORT_TORCH:
                rows[name].append(timed(words)[0])
                continue
            cache = ["--cache", str(scratch / f"{name} {run}")]
            more = ["--no-cache"] if arguments.no_cache else cache
            row, answer, ended = timed([*words, *more], variables)
            parts = json.loads(answer)["timings"]
            startup = row["wall"] - ended - parts["total"]
            rows[name].append(row | parts | {"startup": startup, "exit": ended})
    found: dict[str, Any] = {name: summary(each) for name, each in rows.items()}
    result = {"runs": arguments.runs, **found, "ratio": ratio(found, "predict", "import torch")}
    if arguments.before:
        result["ratio before"] = ratio(found, "predict before", "import torch")
        result["ratio to before"] = ratio(found, "predict", "predict before")
    return result


def ratio(found: dict[str, dict[str, Row]], one: str, other: str) -> dict[str, Row]:
    return {
        kind: {part: found[one][part][kind] / found[other][part][kind] for part in ("wall", "cpu")}
        for kind in KINDS
    }


def timed(words: list[str], variables: dict[str, str] | None = None) -> tuple[Row, bytes, float]:
    """Wall and CPU seconds of a command, its output, and the seconds from that to its end."""
    began = time.perf_counter()
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables
    ) as process:
        assert process.stdout is not None
        # The end of the output comes with the end of the process: the last byte is what counts.
        answer, answered = b"", began
        while part := os.read(process.stdout.fileno(), 2**16):
            answer, answered = answer + part, time.perf_counter()
        _, status, used = os.wait4(process.pid, 0)
        ended = time.perf_counter()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    row = {"wall": ended - began, "cpu": used.ru_utime + used.ru_stime}
    return row, answer, ended - answered


def measure_stream(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """A clip's answer in the stream beside its decoding and forward pass alone."""
    config = InferenceConfig(use_cache=False, workers=1)
    member = Predictor(find_model(arguments.model, Reporter()), config, Reporter())
    engine, grids, number = member.extractor.encoder.engine, [member.extractor.spec.grid], count()
    rows: list[Row] = []
    words = [*PREDICT, "-", "--model", arguments.model, "--format", "jsonl", "--cache"]
    with subprocess.Popen(
        [*words, str(scratch / "stream")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for run in range(arguments.runs + 1):
            for clip in map(Path, arguments.clips):
                copy = scratch / f"{next(number)}{clip.suffix}"
                shutil.copyfile(clip, copy)
                with copy.open("ab") as file:
                    file.write(copy.stem.encode().rjust(8, b"\0"))
                time.sleep(SETTLED)
                began = time.perf_counter()
                frames = member.pool.submit(member.extractor.request(Clip(copy))).result()
                decoded = time.perf_counter()
                precision = engine.choose(frames.pixels, many=False).precision
                engine.features([frames.pixels], precision, grids)
                encoded = time.perf_counter()
                process.stdin.write(f"{copy}\n")
                process.stdin.flush()
                record = json.loads(process.stdout.readline())
                answered = time.perf_counter()
                if not record["ok"]:
                    raise SystemExit(f"{clip}: {record['error']}")
                if run:  # the first one warms up
                    decode, forward = decoded - began, encoded - decoded
                    rows.append(
                        {"decode": decode, "forward": forward, "answer": answered - encoded}
                    )
                copy.unlink()
        process.stdin.close()
    member.pool.close()
    found = summary(rows)
    ratio = {
        kind: found["answer"][kind] / (found["decode"][kind] + found["forward"][kind])
        for kind in ("median", "min")
    }
    return {"answers": len(rows), **found, "ratio": ratio}


def summary(rows: list[Row]) -> dict[str, Row]:
    return {
        part: {"median": statistics.median(values), "min": min(values)}
        for part in rows[0]
        for values in [[row[part] for row in rows]]
    }


def markdown(cold: dict[str, Any], stream: dict[str, Any] | None) -> str:
    lines = ["| cold | median wall s | min wall s | median cpu s | min cpu s |", "|" + "---|" * 5]
    for name in ("import torch", "predict", "predict before"):
        if name in cold:
            seconds = cold[name]
            by_kind = {kind: {each: seconds[each][kind] for each in seconds} for kind in KINDS}
            lines.append(_row(name, by_kind))
    titles = {
        "ratio": f"ratio (target {TARGET_COLD})",
        "ratio before": "ratio of the one before",
        "ratio to before": "ratio to the one before",
    }
    lines += [_row(title, cold[name]) for name, title in titles.items() if name in cold]
    lines += ["", "| part of predict | median ms | min ms |", "|---|---|---|"]
    for part, seconds in cold["predict"].items():
        if part not in ("wall", "cpu", "total"):
            lines.append(f"| {part} | {_ms(seconds)} |")
    if stream is None:
        return "\n".join(lines)
    lines += ["", f"| stream, {stream['answers']} answers | median ms | min ms |", "|---|---|---|"]
    for part in ("decode", "forward", "answer"):
        lines.append(f"| {part} | {_ms(stream[part])} |")
    both = stream["ratio"]
    lines.append(f"| ratio (target {TARGET_STREAM}) | {both['median']:.2f} | {both['min']:.2f} |")
    return "\n".join(lines)


def _row(name: str, found: dict[str, Row]) -> str:
    cells = [found[kind][part] for part in ("wall", "cpu") for kind in KINDS]
    return f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


def _ms(seconds: Row) -> str:
    return f"{1000 * seconds['median']:.1f} | {1000 * seconds['min']:.1f}"


if __name__ == "__main__":
    main()
